"""EVA: photographs of AVA, shown small, with votes from 0 to 10 by about 33 people each.

Votes are the filtered ones of `votes_filtered.csv`, separated by `=`. Photographs are called by their numbers in AVA,
so that the leakage filter knows them again. The votes on light, composition, quality and subject that are published too
have no place in calm's tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from calm.data import SourceError
from calm.data.reading.cells import numbered, numbers, read_cells, refuse, require
from calm.data.reading.folder import FolderSource

VOTES = "votes_filtered.csv"


class Eva(FolderSource, about=__file__):
    """EVA; no split is published."""

    def labels(self) -> Iterable[Path]:
        return [self.find(f"**/{VOTES}")]

    @cached_property
    def votes(self) -> pd.DataFrame:
        """Columns item_id, rater_id, score, ordered by them."""
        return read_votes(self.find(f"**/{VOTES}"))

    def wanted(self) -> Mapping[str, str]:
        return {item_id: item_id for item_id in sorted(set(self.votes["item_id"]), key=int)}

    def ratings(self, items: pd.DataFrame) -> pd.DataFrame:
        """The mean of every photograph's votes with their histogram over 0..10, and every single vote."""
        votes = self.votes[self.votes["item_id"].isin(items["item_id"])]
        grid = pd.crosstab(votes["item_id"], votes["score"]).reindex(columns=range(11), fill_value=0)
        counts = grid.to_numpy(np.int32)
        crowd = pd.DataFrame(
            {
                "item_id": grid.index,
                "score": (counts @ np.arange(11)) / counts.sum(axis=1),
                "votes": pd.Series(list(counts), dtype=object),
                "n": counts.sum(axis=1),
            }
        )
        rows = pd.concat([crowd, votes], ignore_index=True)
        return rows.assign(score_min=0.0, score_max=10.0, origin="human")


def read_votes(path: Path) -> pd.DataFrame:
    """votes_filtered.csv; columns item_id, rater_id, score.

    Raises:
        SourceError: a cell is missing or wrong, or a person voted twice on a photograph.
    """
    cells = read_cells(path, "=")
    require(cells, ["image_id", "user_id", "score"], path)
    refuse(cells, cells["user_id"] == "", "user_id", path, "names nobody")
    score = numbers(cells, ["score"], path, 0, 10, whole=True)[:, 0]
    names = numbered(cells, "image_id", path)
    votes = pd.DataFrame({"item_id": names, "rater_id": cells["user_id"], "score": score})
    again = votes.duplicated(["item_id", "rater_id"])
    if again.any():
        row = int(again.to_numpy().argmax())
        voter, image = votes["rater_id"].iloc[row], names.iloc[row]
        raise SourceError(f"{path}, line {votes.index[row]}: '{voter}' voted on '{image}' before")
    return votes.sort_values(["item_id", "rater_id"], ignore_index=True)


SOURCE = Eva
