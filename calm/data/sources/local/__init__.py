"""Your own photographs: a folder, and if they are rated or commented, a csv `file,score[,rater][,comment]`.

    data:
      datasets:
        local: {root: /photos/mine, csv: scores.csv, score_min: 1, score_max: 7, licence: my own}

Without a csv the photographs serve the role `unlabelled` only. An item is called by its path in the folder, without
the suffix (with it where `IMG_1.jpg` lies beside `IMG_1.png`). Photographs of the folder that the csv does not name
are unlabelled ones.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from calm.data.obtain.archives import files_below
from calm.data.reading.base import Photograph, RawFile, Settings, Source, SourceError
from calm.data.reading.cells import numbers, read_spreadsheet, refuse, require, spellings
from calm.data.store.images import SUFFIXES

ROOT_VARIABLE = "CALM_DATA"
_COLUMNS = ("file", "score", "rater", "comment")


class LocalSettings(Settings):
    """params.data.datasets.local."""

    root: str | None = None  # None: the environment variable CALM_DATA
    csv: str | None = None  # in the folder, or a path of its own
    score_min: float | None = None
    score_max: float | None = None
    licence: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _scale_belongs_to_a_csv(self) -> LocalSettings:
        if self.csv is None:
            if self.score_min is not None or self.score_max is not None:
                raise ValueError("data.datasets.local: score_min and score_max have no effect without csv")
        elif self.score_min is None or self.score_max is None or not self.score_min < self.score_max:
            raise ValueError("data.datasets.local: csv needs score_min < score_max, the ends of its scale")
        return self


class Local(Source, about=__file__):
    """A folder of photographs and optionally a csv of scores and comments by people."""

    settings_type = LocalSettings
    settings: LocalSettings

    @cached_property
    def root(self) -> Path:
        """The folder of photographs.

        Raises:
            SourceError: none was named, or it does not exist.
        """
        named = self.settings.root or os.environ.get(ROOT_VARIABLE)
        if not named:
            raise SourceError(
                f"data.datasets.{self.name}.root is not set and {ROOT_VARIABLE} is not either: name a folder"
            )
        root = Path(named).expanduser()
        if not root.is_dir():
            raise SourceError(f"data.datasets.{self.name}.root: {root} is not a folder")
        return root

    @cached_property
    def csv_path(self) -> Path | None:
        """The csv, looked for in the folder first."""
        if self.settings.csv is None:
            return None
        inside = self.root / self.settings.csv
        path = inside if inside.is_file() else Path(self.settings.csv).expanduser()
        if not path.is_file():
            raise SourceError(f"data.datasets.{self.name}.csv: neither {inside} nor {path} exists")
        return path

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Every photograph of the folder by its name there, hidden ones left out."""
        return {name: self.root / name for name in files_below(self.root) if name.lower().endswith(SUFFIXES)}

    @cached_property
    def _ids(self) -> dict[str, str]:
        """What each is called: its path without the suffix; with it where two would be called the same."""
        stems = {name: PurePosixPath(name).with_suffix("").as_posix() for name in self.paths}
        many = Counter(stems.values())
        return {name: stem if many[stem] == 1 else name for name, stem in stems.items()}

    def files(self) -> Iterable[RawFile]:
        """The csv and the photographs; a csv that cannot be read is an error here already."""
        if self.csv_path is not None:
            _ = self.labels
            yield RawFile(f"csv/{self.csv_path.name}", self.csv_path, self.settings.licence)
        for name, path in self.paths.items():
            yield RawFile(name, path, self.settings.licence)

    def photographs(self) -> Iterator[Photograph]:
        """Every photograph of the folder, each a group of its own."""
        for name, path in self.paths.items():
            yield Photograph(self._ids[name], name, path, self._ids[name], self.settings.licence)

    @cached_property
    def labels(self) -> pd.DataFrame:
        """The rows of the csv by line: columns item_id, score (NaN: none), rater, comment (empty: none).

        Raises:
            SourceError: naming the csv, the line and the column.
        """
        path = self.csv_path
        if path is None:
            return pd.DataFrame(columns=["item_id", "score", "rater", "comment"], dtype=str).astype({"score": float})
        cells = _known(read_spreadsheet(path), path)
        names = cells["file"].map(self._found)
        rows = pd.DataFrame({"item_id": names.map(self._ids), "score": np.nan, **cells[["rater", "comment"]]})
        scored = cells["score"] != ""
        cells["score"] = cells["score"].str.replace(",", ".")  # a decimal comma
        low, high = self._scale
        rows.loc[scored, "score"] = numbers(cells[scored], ["score"], path, low, high)[:, 0]
        again = scored & rows[scored].duplicated(["item_id", "rater"]).reindex(rows.index, fill_value=False)
        for column, wrong, what in (
            ("file", names.isna(), f"is no photograph in {self.root}"),
            ("score", ~scored & (cells["comment"] == ""), "is empty, and there is no comment either"),
            ("file", again, "was scored by this rater, or by nobody in particular, before"),
        ):
            refuse(cells, wrong, column, path, what)
        return rows

    def _found(self, written: str) -> str | None:
        """The photograph that a cell names."""
        names = (PurePosixPath(name).as_posix() for name in spellings(written))
        return next((name for name in names if name in self.paths), None)

    @property
    def _scale(self) -> tuple[float, float]:
        low, high = self.settings.score_min, self.settings.score_max
        assert low is not None and high is not None, "settings are checked"
        return low, high

    def ratings(self, items: pd.DataFrame) -> list[dict[str, Any]]:
        """Rows of single raters, and for every scored photograph the crowd's: as given, else the raters' mean."""
        scored = self.labels[self.labels["score"].notna()]
        scale = {"score_min": self.settings.score_min, "score_max": self.settings.score_max, "origin": "human"}
        rows: list[dict[str, Any]] = [
            {"item_id": item_id, "rater_id": rater or None, "score": score, **scale}
            for item_id, score, rater in scored[["item_id", "score", "rater"]].itertuples(index=False)
        ]
        given = scored.loc[scored["rater"] == "", "item_id"]
        for item_id, of_item in scored[~scored["item_id"].isin(given)].groupby("item_id", sort=True)["score"]:
            scores = of_item.tolist()
            mean = math.fsum(scores) / len(scores)
            rows.append({"item_id": item_id, "score": mean, "votes": self._votes(scores), "n": len(scores), **scale})
        return rows

    def _votes(self, scores: list[float]) -> list[int] | None:
        """Histogram over the scale's whole steps, if all scores are whole."""
        low, high = self._scale
        if not all(value.is_integer() for value in (low, high, *scores)):
            return None
        return [scores.count(step) for step in range(int(low), int(high) + 1)]

    def comments(self, items: pd.DataFrame) -> pd.DataFrame:
        """What people wrote."""
        said = self.labels[self.labels["comment"] != ""]
        ids = said["item_id"] + "/line" + said.index.astype(str)
        return pd.DataFrame({"item_id": said["item_id"], "comment_id": ids, "text": said["comment"], "origin": "human"})


def _known(cells: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The known columns, empty where they may be left out; others are refused, doubled ones among them (NAME.1)."""
    require(cells, ["file", "score"], path)
    unknown = [name for name in cells.columns if name not in _COLUMNS]
    if unknown:
        raise SourceError(f"{path}, line 1: unknown or second column '{unknown[0]}'; known are {', '.join(_COLUMNS)}")
    return cells.reindex(columns=list(_COLUMNS), fill_value="")


SOURCE = Local
