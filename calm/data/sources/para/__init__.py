"""PARA: photographs whose aesthetics some 25 persons each rated from 1 to 5, with the official split.

Two layouts are read. The authors' own: PARA-GiaaTrain.csv and PARA-GiaaTest.csv (means, and histograms in steps of .5),
beside PARA-Images.csv with every person's rating, where it is there. And a part of it: items.csv (file, session, mean,
n) of training photographs, which are then split as `data.split` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import pandas as pd

from calm.data.reading.cells import ids, numbers, read_cells, refuse, refuse_doubles, require
from calm.data.reading.folder import ScoredFolder

SCALE = (1.0, 5.0)
PERSONS = "PARA-Images.csv"
_LISTS = {"train": "PARA-GiaaTrain.csv", "test": "PARA-GiaaTest.csv"}
_PART = "items.csv"
_STEPS = [f"aestheticScore_{step / 2:.1f}" for step in range(2, 11)]  # 1.0, 1.5, ..., 5.0


class Para(ScoredFolder, about=__file__):
    """Photographs with the crowd's score, and single persons' ratings where they are published beside it."""

    scale = SCALE

    @cached_property
    def tables(self) -> dict[str, Path]:
        """The file of scores of each split that is there."""
        part = self.maybe(_PART)
        return {"train": part} if part else {split: self.find(f"**/{name}") for split, name in _LISTS.items()}

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Columns score (1..5), votes (lists of nine, or null), n (or null) and split, by item id.

        Raises:
            SourceError: a cell is wrong, or a photograph is there twice; the message names file, row and column.
        """
        found = pd.concat([read_scores(path).assign(split=split) for split, path in self.tables.items()])
        if self.maybe(_PART):
            found["split"] = None
        refuse_doubles(found.index.to_series(index=pd.RangeIndex(len(found))), "imageName", [*self.tables.values()][-1])
        return found

    @cached_property
    def persons(self) -> pd.DataFrame:
        """Columns item_id, rater_id, score (1..5); empty where single ratings are not there."""
        path = self.maybe(f"**/{PERSONS}")
        return read_persons(path) if path else pd.DataFrame({"item_id": [], "rater_id": [], "score": []})

    def split_rule(self, split: str) -> str:
        return f"PARA {self.tables[split].name}"

    def labels(self) -> Iterable[Path]:
        persons = self.maybe(f"**/{PERSONS}")
        return [*self.tables.values(), *([persons] if persons else [])]

    def ratings(self, items: pd.DataFrame) -> pd.DataFrame:
        """The crowd's mean, with its votes where they are told, and every person's rating."""
        persons = self.persons[self.persons["item_id"].isin(items["item_id"])]
        rows = pd.concat([super().ratings(items), persons], ignore_index=True)
        return rows.assign(score_min=SCALE[0], score_max=SCALE[1], origin="human")

    def counts(self) -> dict[str, int]:
        """And persons, where they are told."""
        return super().counts() | ({"raters": self.persons["rater_id"].nunique()} if len(self.persons) else {})


def read_scores(path: Path) -> pd.DataFrame:
    """One table of means; see `Para.scores`. Histograms that hold shares instead of counts are no votes.

    Raises:
        SourceError: a cell is wrong, or a photograph is there twice.
    """
    cells = read_cells(path)
    part = path.name == _PART
    name, mean = ("file", "mean") if part else ("imageName", "aestheticScore_mean")
    names = ids(cells, name, path)
    refuse_doubles(names, name, path)
    frame = pd.DataFrame({"score": numbers(cells, [mean], path, *SCALE)[:, 0], "votes": None, "n": None})
    if part:
        frame["n"] = numbers(cells, ["n"], path, low=1, whole=True)[:, 0]
    else:
        votes = numbers(cells, _STEPS, path, 0)
        if (votes == votes.round()).all():
            frame["votes"] = pd.Series(votes.astype(int).tolist(), dtype=object)
            frame["n"] = votes.sum(axis=1).astype(int)
    frame.index = pd.Index(names.to_numpy(object), name="item_id")
    return frame


def read_persons(path: Path) -> pd.DataFrame:
    """Every person's rating, ordered by photograph and person; where one rated a photograph twice, the mean.

    Raises:
        SourceError: a cell is missing or no score from 1 to 5.
    """
    cells = read_cells(path)
    require(cells, ["userId"], path)
    refuse(cells, cells["userId"] == "", "userId", path, "names nobody")
    score = numbers(cells, ["aestheticScore"], path, *SCALE)[:, 0]
    frame = pd.DataFrame({"item_id": ids(cells, "imageName", path), "rater_id": cells["userId"], "score": score})
    return frame.groupby(["item_id", "rater_id"], sort=True)["score"].mean().reset_index()


SOURCE = Para
