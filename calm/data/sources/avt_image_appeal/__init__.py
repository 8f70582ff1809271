"""AVT-ImageAppeal: photographs of six collections with some 73 votes each on their appeal, 1 to 5; without a split.

Two layouts are read. The authors' own: all_test.csv, a row for each photograph and experiment, whose votes add up, and
photographs at SUBSET/medium/NAME.jpg. And a part of it: items.csv with the votes of a photograph, and thumbnails.

Photographs of the subsets ava, aadb and koniq10k keep the names that they have in these sets, so that the leakage
filter knows them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import pandas as pd

from calm.data.obtain.archives import located
from calm.data.reading.cells import means, numbers, read_cells, refuse, require
from calm.data.reading.folder import ScoredFolder

_OWN_NAMES = ("ava", "aadb", "koniq10k")
_PUBLISHED = r"^static/images/(?P<subset>[^/]+)/medium/(?P<stem>.+)\.jpg$"
_PART = r"^(?P<subset>.+?)__(?P<stem>.+)\.png$"


class AvtImageAppeal(ScoredFolder, about=__file__):
    """Photographs by subset, with the votes of all experiments."""

    scale = (1.0, 5.0)

    @cached_property
    def table(self) -> Path:
        """The file with the votes."""
        return self.find("items.csv", "**/all_test.csv")

    @cached_property
    def scores(self) -> pd.DataFrame:
        return read_votes(self.table)

    def labels(self) -> Iterable[Path]:
        _ = self.scores
        return (self.table,)

    def wanted(self) -> Mapping[str, str]:
        """Item id -> path of the photograph below the folder."""
        found = located(self.images, self.scores["path"])
        return {str(item_id): found[path] for item_id, path in self.scores["path"].items()}


def read_votes(path: Path) -> pd.DataFrame:
    """Either table: columns path (of the photograph), score, votes (counts of 1 to 5) and n, by item id.

    Raises:
        SourceError: a cell is wrong; the message names file, line and column.
    """
    part = path.name == "items.csv"
    name = "file" if part else "filename"
    steps = [f"votes{step}" if part else f"count_{step}" for step in range(1, 6)]
    cells = read_cells(path)
    require(cells, [name], path)
    told = cells[name].str.extract(_PART if part else _PUBLISHED)
    wanted = "is no photograph of a subset, as SUBSET__NAME.png or .../medium/NAME.jpg"
    refuse(cells, told["stem"].isna(), name, path, wanted)
    counts = pd.DataFrame(numbers(cells, steps, path, 0, whole=True), columns=steps)
    own = told["subset"].isin(_OWN_NAMES)
    counts["item_id"] = told["stem"].where(own, told["subset"] + "__" + told["stem"]).to_numpy()
    counts["path"] = (cells[name] if part else told["subset"] + "/medium/" + told["stem"] + ".jpg").to_numpy()
    votes = counts.groupby(["item_id", "path"], sort=True)[steps].sum()
    table = votes.to_numpy()
    silent = table.sum(axis=1) == 0
    if silent.any():
        item_id, _ = votes.index.to_list()[int(silent.argmax())]
        refuse(cells, counts["item_id"] == item_id, steps[0], path, "and the others count no vote")
    frame = pd.DataFrame({"path": votes.index.get_level_values("path"), "score": means(table)})
    frame["votes"] = pd.Series(table.tolist(), dtype=object)
    frame["n"] = table.sum(axis=1)
    return frame.set_index(votes.index.get_level_values("item_id"))


SOURCE = AvtImageAppeal
