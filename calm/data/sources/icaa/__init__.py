"""ICAA17K: photographs of 30 combinations of colours with scores of aesthetics and of colour, and the authors' split.

`1train.csv` and `1test.csv` have the columns ID (the photograph's path by combination), color, MOS, probability. The
score read is MOS; that of colour alone has no place in calm's tables. A photograph that is listed under two
combinations is one group, so that it never lies on both sides of a split unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath

import pandas as pd

from calm.data.obtain.archives import located
from calm.data.reading.base import Photograph
from calm.data.reading.cells import numbers, read_cells, refuse, refuse_doubles, require
from calm.data.reading.folder import ScoredFolder

_LISTS = {"train": ("**/1train.csv", "**/train.csv"), "test": ("**/1test.csv", "**/test.csv")}


class Icaa(ScoredFolder, about=__file__):
    """Photographs by combination of colours."""

    scale = (1.0, 10.0)

    @cached_property
    def tables(self) -> dict[str, Path]:
        """The lists by split."""
        return {split: self.find(*patterns) for split, patterns in _LISTS.items()}

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Columns path (as published), score (1..10) and split, by item id."""
        parts = []
        for split, path in self.tables.items():
            cells = read_cells(path)
            require(cells, ["ID"], path)
            refuse(cells, cells["ID"] == "", "ID", path, "names no photograph")
            refuse_doubles(cells["ID"], "ID", path)
            score = numbers(cells, ["MOS"], path, *self.scale)[:, 0]
            parts.append(pd.DataFrame({"path": cells["ID"], "score": score, "split": split}))
        rows = pd.concat(parts, ignore_index=True)
        rows.index = pd.Index([PurePosixPath(path).with_suffix("").as_posix() for path in rows["path"]])
        refuse_doubles(rows["path"], "ID", self.tables["test"])
        return rows

    def labels(self) -> Iterable[Path]:
        _ = self.scores
        return self.tables.values()

    @cached_property
    def places(self) -> Mapping[str, str]:
        """Item id -> name in the index."""
        found = located(self.images, self.scores["path"])
        return {str(item_id): found[path] for item_id, path in self.scores["path"].items()}

    def wanted(self) -> Mapping[str, str]:
        return self.places

    def photographs(self) -> Iterator[Photograph]:
        """Those that are there; the same file name under two combinations is one group."""
        splits = self.scores["split"]
        for item_id, name in self.places.items():
            ref = self.images.get(name)
            if ref is not None:
                split = str(splits[item_id])
                group = PurePosixPath(item_id).name
                yield self.photograph(item_id, ref, split, f"ICAA17K {self.tables[split].name}", group)


SOURCE = Icaa
