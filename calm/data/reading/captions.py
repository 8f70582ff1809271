"""Captions of photographs in three public layouts; each reader gives a frame with the columns item_id and text.

Photographs are called by their numbers, captions stand in the file's order. Empty captions are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from calm.data.errors import SourceError
from calm.data.reading.cells import numbered


def read_karpathy(path: Path, field: str) -> pd.DataFrame:
    """A json in Karpathy's layout: {"images": [{"filename", "sentences": [{field: text}]}]}.

    Read as a stream: tokens make such a file many times as large as the captions in it.

    Args:
        field: which text of a sentence; `raw` or `clean` in AVA-Captions.

    Raises:
        SourceError: it is no such json; the message names the entry.
    """
    return _frame(path, _karpathy(path, field))


def _karpathy(path: Path, field: str) -> Iterator[tuple[str, str]]:
    import ijson

    number = 0
    try:
        with path.open("rb") as file:
            for number, image in enumerate(ijson.items(file, "images.item"), start=1):  # noqa: B007 (for errors)
                name = image["filename"]
                for sentence in image["sentences"]:
                    yield name, sentence[field]
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not a whole json after entry {number}: {error}") from None
    except (KeyError, TypeError) as error:
        raise SourceError(f"{path}, entry {number}: no filename and sentences with '{field}': {error!r}") from None


def read_coco(path: Path) -> tuple[frozenset[str], pd.DataFrame]:
    """Images and captions of a json in COCO's layout.

    {"images": [{"id"}], "annotations": [{"image_id", "caption"}]}

    Raises:
        SourceError: it is no such json, or a caption is of none of its images.
    """
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        images = frozenset(str(int(image["id"])) for image in content["images"])
        pairs = [(str(int(row["image_id"])), row["caption"]) for row in content["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: not a json with images and annotations in COCO's layout: {error!r}") from None
    for number, (image, _) in enumerate(pairs):
        if image not in images:
            raise SourceError(f"{path}, annotation {number}: its image_id {image} is none of the images")
    return images, _frame(path, pairs)


def read_comments(path: Path) -> tuple[pd.DataFrame, int]:
    """AVA_Comments_Full.txt: `index#number#comment#comment...`, one photograph a line.

    Comments that hold a `#` themselves fall into parts: the layout has no escape for it. Lines without a photograph's
    number are left out, as the authors' own script does; how many is the second value.

    Raises:
        SourceError: it is not UTF-8, or has no photographs.
    """
    pairs: list[tuple[str, str]] = []
    without = 0
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                cells = line.rstrip("\r\n").split("#")
                number = cells[1].strip() if len(cells) > 1 else ""
                if number.isascii() and number.isdigit():
                    pairs += [(number, comment) for comment in cells[2:]]
                elif line.strip():
                    without += 1
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8: {error}") from None
    return _frame(path, pairs), without


def _frame(path: Path, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """The frame of (name of a photograph, caption)."""
    names, texts = [], []
    for name, text in pairs:
        if not isinstance(name, str) or not isinstance(text, str | int | Decimal):
            raise SourceError(f"{path}: the caption of '{name}' is no text: {text!r}")
        names.append(name)
        texts.append(str(text))
    frame = pd.DataFrame({"item_id": pd.Series(names, dtype=str), "text": pd.Series(texts, dtype=str)})
    if frame.empty:
        raise SourceError(f"{path}: no captions in it")
    frame["item_id"] = numbered(frame, "item_id", path)
    return frame[frame["text"].str.strip() != ""].reset_index(drop=True)
