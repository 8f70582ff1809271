"""TAD66K: photographs of 47 themes from Flickr with scores from 1 to 10, and the authors' split.

Labels are csv files with the columns image, score: all themes in one file (`merge/train.csv`, `merge/test.csv`), or a
file per theme in folders called train and test (`unmerge`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import pandas as pd

from calm.data import SourceError
from calm.data.reading.cells import ids, numbers, read_cells, refuse_doubles
from calm.data.reading.folder import ScoredFolder

# Of either layout, for each split; `merge_test.csv` and the like is what a flat copy of the folders is called.
_MERGED = ("**/merge/{split}.csv", "**/merge_{split}.csv")
_APART = (
    "**/unmerge/{split}/*.csv",
    "**/unmerge/*/{split}.csv",
    "**/unmerge_{split}_*.csv",
    "**/unmerge/*{split}*.csv",
)


class Tad66k(ScoredFolder, about=__file__):
    """Photographs by theme."""

    scale = (1.0, 10.0)

    @cached_property
    def tables(self) -> dict[str, list[Path]]:
        """Files of labels by split: of all themes together if they are there.

        Raises:
            SourceError: those of a split are missing.
        """
        for patterns in (_MERGED, _APART):
            found = {split: self._of(patterns, split) for split in ("train", "test")}
            if any(found.values()):
                missing = [split for split, paths in found.items() if not paths]
                if missing:
                    there = next(paths[0] for paths in found.values() if paths)
                    raise SourceError(f"dataset '{self.name}': {there} is there, but no labels of '{missing[0]}'")
                return found
        return {"test": [self.find(*(pattern.format(split="test") for pattern in _MERGED + _APART))]}

    def _of(self, patterns: tuple[str, ...], split: str) -> list[Path]:
        """Files of the first pattern that has any."""
        found = (self.find_all(pattern.format(split=split)) for pattern in patterns)
        return next((paths for paths in found if paths), [])

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Columns score (1..10) and split by item id."""
        rows = [
            read_scores(path).to_frame("score").assign(split=split)
            for split, paths in self.tables.items()
            for path in paths
        ]
        found = pd.concat(rows)
        again = found.index[found.index.duplicated()]
        if len(again):
            raise SourceError(f"dataset '{self.name}': '{again[0]}' has more than one row in {self.root}")
        return found

    def split_rule(self, split: str) -> str:
        return f"TAD66K {split}.csv"

    def labels(self) -> Iterable[Path]:
        _ = self.scores
        return [path for paths in self.tables.values() for path in paths]


def read_scores(path: Path) -> pd.Series:
    """Scores of one csv by item id."""
    cells = read_cells(path)
    names = ids(cells, "image", path)
    refuse_doubles(names, "image", path)
    return pd.Series(numbers(cells, ["score"], path, *Tad66k.scale)[:, 0], index=names.to_list())


SOURCE = Tad66k
