"""PCCD: photographs with critiques by professionals, by aspect, and their overall scores.

Read from json files as the repository Aestheval has them, `guru_train.json`, `guru_validation.json`, `guru_test.json`
(or `processed_...`, or one `raw.json` without a split): a list of critiques with the photograph's name in `title` or
`im_name`, a text for each of seven aspects, and `overall`. A photograph that is there more than once was reviewed more
than once. The photographer's own `description` is no critique and is left out, as are names of people.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from calm.data import SourceError
from calm.data.reading.folder import FolderSource
from calm.data.store.images import SUFFIXES

SCALE = (1, 10)
ASPECTS = {  # of the json -> of COMMENT; None: the photograph as a whole
    "general_impression": None,
    "subject_of_photo": "subject",
    "composition": "composition",
    "use_of_camera": "use of camera",
    "depth_of_field": "depth of field",
    "color_lighting": "colour and lighting",
    "focus": "focus",
}
_SPLITS = ("train", "validation", "test")


class Pccd(FolderSource, about=__file__):
    """Photographs with critiques."""

    @cached_property
    def tables(self) -> dict[str | None, Path]:
        """The json files by split; one under None where no split is there.

        Raises:
            SourceError: some of the three are missing.
        """
        found = {split: self.maybe(f"**/guru_{split}.json", f"**/processed_{split}.json") for split in _SPLITS}
        there: dict[str | None, Path] = {split: path for split, path in found.items() if path is not None}
        if not there:
            return {None: self.find("**/raw.json", "**/PCCD.json", "**/guru_train.json")}
        if len(there) < len(_SPLITS):
            missing = [split for split in _SPLITS if split not in there]
            raise SourceError(f"dataset '{self.name}': {self.root} has no guru_{missing[0]}.json beside the others")
        return there

    @cached_property
    def critiques(self) -> pd.DataFrame:
        """Columns item_id, name (of the photograph), split, score (NaN: none given), and the keys of ASPECTS."""
        found = pd.concat([read_critiques(path).assign(split=split) for split, path in self.tables.items()])
        by_item = found.groupby("item_id", sort=False)["split"].nunique()
        if (by_item > 1).any():
            raise SourceError(f"dataset '{self.name}': '{by_item.idxmax()}' is in two of {', '.join(_SPLITS)}")
        return found.reset_index(drop=True)

    def labels(self) -> Iterable[Path]:
        _ = self.critiques
        return self.tables.values()

    def wanted(self) -> Mapping[str, str]:
        return dict(zip(self.critiques["item_id"], self.critiques["name"], strict=True))

    def splits(self) -> Mapping[str, tuple[str, str]]:
        known = self.critiques.dropna(subset=["split"])
        return {
            item_id: (split, f"Aestheval {self.tables[split].name}")
            for item_id, split in zip(known["item_id"], known["split"], strict=True)
        }

    def ratings(self, items: pd.DataFrame) -> pd.DataFrame:
        """The mean of the overall scores that reviewers gave a photograph, nearly always one."""
        known = self.critiques[self.critiques["item_id"].isin(items["item_id"])].dropna(subset=["score"])
        rated = known.groupby("item_id")["score"].agg(["mean", "size"]).reset_index()
        rated.columns = pd.Index(["item_id", "score", "n"])
        return rated.assign(score_min=float(SCALE[0]), score_max=float(SCALE[1]), origin="human")

    def comments(self, items: pd.DataFrame) -> pd.DataFrame:
        """One row for each aspect that a reviewer wrote of."""
        known = self.critiques[self.critiques["item_id"].isin(items["item_id"])]
        number = known.groupby("item_id").cumcount().astype(str)
        parts = []
        for key, aspect in ASPECTS.items():
            part = pd.DataFrame({"item_id": known["item_id"], "text": known[key], "aspect": aspect})
            parts.append(part.assign(comment_id=known["item_id"] + "/" + number + "/" + key, origin="human"))
        rows = pd.concat(parts)
        return rows[rows["text"] != ""].sort_values("comment_id", ignore_index=True)


def read_critiques(path: Path) -> pd.DataFrame:
    """One json file.

    Returns:
        Columns item_id, name, score and the keys of ASPECTS, in the file's order.

    Raises:
        SourceError: it is no such list; the message names the entry.
    """
    try:
        entries = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SourceError(f"{path}: not JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise SourceError(f"{path}: no list of critiques")
    return pd.DataFrame([_critique(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, start=1)])


def _critique(entry: Any, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise SourceError(f"{where}: no critique")
    name = str(entry.get("title") or entry.get("im_name") or "").strip()
    if not name:
        raise SourceError(f"{where}: no 'title' or 'im_name', the photograph's name")
    missing = [key for key in ASPECTS if key not in entry]
    if missing:
        raise SourceError(f"{where} ('{name}'): no key '{missing[0]}'")
    texts = {key: str(entry[key] or "").strip() for key in ASPECTS}
    stem = name.rsplit(".", 1)[0] if name.lower().endswith(SUFFIXES) else name
    return {"item_id": stem, "name": name, "score": _overall(entry.get("overall"), where, name), **texts}


def _overall(value: Any, where: str, name: str) -> float | None:
    """The overall score, a number in text; None where none was given."""
    if value is None or str(value).strip() == "":
        return None
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = float("nan")
    if not SCALE[0] <= score <= SCALE[1]:
        raise SourceError(f"{where} ('{name}'), 'overall': '{value}' is not a number in {SCALE[0]}..{SCALE[1]}")
    return score


SOURCE = Pccd
