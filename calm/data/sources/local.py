"""Your own photographs: a folder, and if they are rated or commented, a csv `file,score[,rater][,comment]`.

    data:
      datasets:
        local: {root: /photos/mine, csv: scores.csv, score_min: 1, score_max: 7, licence: my own}

Without a csv the photographs serve the role `unlabelled` only. An item is called by its path in the folder, without
the suffix (with it where `IMG_1.jpg` lies beside `IMG_1.png`). Photographs of the folder that the csv does not name
are unlabelled ones.
"""

from __future__ import annotations

import csv
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import pandas as pd
from pydantic import Field, model_validator

from calm.data.obtain.archives import files_below
from calm.data.reading.base import Card, Photograph, RawFile, Settings, Source, SourceError
from calm.data.reading.cells import rating, spellings, written_how
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


@dataclass(frozen=True)
class Labelled:
    """One row of the csv."""

    item_id: str
    score: float | None
    rater: str | None
    comment: str | None
    line: int


class Local(Source):
    """A folder of photographs and optionally a csv of scores and comments by people."""

    card = Card(
        title="Local folder",
        task="whatever its csv holds: scores, single raters' scores, comments",
        size="as found",
        licence="as stated in params",
        terms="yours to know",
        citation="none",
        home="none",
    )
    settings_type = LocalSettings

    @property
    def settings(self) -> LocalSettings:
        """The checked settings."""
        assert isinstance(self._settings, LocalSettings)
        return self._settings

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
    def labels(self) -> list[Labelled]:
        """The rows of the csv.

        Raises:
            SourceError: naming the csv, the line and the column.
        """
        if self.csv_path is None:
            return []
        try:
            encoding, separator = written_how(self.csv_path)
            with self.csv_path.open(encoding=encoding, newline="") as file:
                reader = csv.DictReader(file, delimiter=separator, strict=True)
                _check_header(self.csv_path, list(reader.fieldnames or []))
                rows = [self._label(row, reader.line_num) for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"{self.csv_path}: not a csv in {encoding.upper()}: {error}") from None
        _check_single(self.csv_path, rows)
        return rows

    def _label(self, row: dict[str | None, Any], line: int) -> Labelled:
        """One row, checked."""
        where = f"{self.csv_path}, line {line}"
        if None in row or None in row.values():
            raise SourceError(f"{where}: more or fewer cells than the header has columns")
        cells = {str(key): str(value).strip() for key, value in row.items()}
        names = (PurePosixPath(name).as_posix() for name in spellings(cells["file"]))
        name = next((name for name in names if name in self.paths), None)
        if name is None:
            raise SourceError(f"{where}, column 'file': no photograph '{cells['file']}' in {self.root}")
        low, high = self._scale
        score = rating(cells["score"], low, high, where) if cells["score"] else None
        comment = cells.get("comment") or None
        if score is None and comment is None:
            raise SourceError(f"{where}, column 'score': empty, and there is no comment either")
        return Labelled(self._ids[name], score, cells.get("rater") or None, comment, line)

    @property
    def _scale(self) -> tuple[float, float]:
        low, high = self.settings.score_min, self.settings.score_max
        assert low is not None and high is not None
        return low, high

    def ratings(self, items: pd.DataFrame) -> list[dict[str, Any]]:
        """Rows of single raters, and for every scored photograph the crowd's: as given, else the raters' mean."""
        scale = {"score_min": self.settings.score_min, "score_max": self.settings.score_max, "origin": "human"}
        scored = [label for label in self.labels if label.score is not None]
        rows: list[dict[str, Any]] = [
            {"item_id": label.item_id, "rater_id": label.rater, "score": label.score, **scale} for label in scored
        ]
        given = {label.item_id for label in scored if label.rater is None}
        by_item: dict[str, list[float]] = defaultdict(list)
        for label in scored:
            if label.score is not None and label.item_id not in given:
                by_item[label.item_id].append(label.score)
        for item_id, scores in sorted(by_item.items()):
            mean = math.fsum(scores) / len(scores)
            rows.append({"item_id": item_id, "score": mean, "votes": self._votes(scores), "n": len(scores), **scale})
        return rows

    def _votes(self, scores: list[float]) -> list[int] | None:
        """Histogram over the scale's whole steps, if all scores are whole."""
        low, high = self._scale
        if not all(value.is_integer() for value in (low, high, *scores)):
            return None
        return [scores.count(step) for step in range(int(low), int(high) + 1)]

    def comments(self, items: pd.DataFrame) -> list[dict[str, Any]]:
        """What people wrote."""
        return [
            {
                "item_id": label.item_id,
                "comment_id": f"{label.item_id}/line{label.line}",
                "text": label.comment,
                "origin": "human",
            }
            for label in self.labels
            if label.comment
        ]


def _check_header(path: Path, found: list[str]) -> None:
    """Refuse missing, doubled and unknown columns."""
    missing = [name for name in ("file", "score") if name not in found]
    if missing:
        raise SourceError(f"{path}, line 1: no column '{missing[0]}'; found: {', '.join(found) or 'nothing'}")
    for name in found:
        if name not in _COLUMNS:
            raise SourceError(f"{path}, line 1: unknown column '{name}'; known are {', '.join(_COLUMNS)}")
        if found.count(name) > 1:
            raise SourceError(f"{path}, line 1: column '{name}' is there twice")


def _check_single(path: Path, rows: list[Labelled]) -> None:
    """Refuse a second score of the same photograph by the same rater, or by nobody in particular."""
    seen: dict[tuple[str, str | None], int] = {}
    for row in rows:
        if row.score is None:
            continue
        key = (row.item_id, row.rater)
        if key in seen:
            rater = f"rater '{row.rater}'" if row.rater else "no rater named"
            raise SourceError(
                f"{path}, line {row.line}: '{row.item_id}' was scored in line {seen[key]} already ({rater})"
            )
        seen[key] = row.line


SOURCE = Local
