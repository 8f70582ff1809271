"""AVA-Captions: comments on AVA's photographs, cleaned by their authors.

The photographs are AVA's and are read from AVA's folder (`ava`). Comments come from the json after subjective cleaning,
else from the one before it, else from the raw `AVA_Comments_Full.txt`. Their field `split` is random and not used: test
are the photographs of `AVA_FULL_VALIDATION.json`, with that file's captions, training all others but AVA's own test
photographs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from calm.data import SourceError
from calm.data.obtain.archives import ImageIndex
from calm.data.reading.cells import numbered
from calm.data.reading.folder import FolderSettings, FolderSource
from calm.data.sources.ava import TEST_LIST, Ava

VALIDATION = "AVA_FULL_VALIDATION.json"
CLEANED = "CLEAN_AVA_FULL_AFTER_SUBJECTIVE_CLEANING.json"
COMMENTS = "AVA_Comments_Full.txt"
TEST_RULE = f"AVA-Captions {VALIDATION}"
TRAIN_RULE = f"AVA-Captions without {VALIDATION} and AVA {TEST_LIST}"


class AvaCaptionsSettings(FolderSettings):
    """params.data.datasets.ava_captions."""

    ava: str | None = None  # AVA's folder, with photographs and test list; None: as for the dataset ava
    text: Literal["clean", "raw"] = "clean"  # which text of a training comment; the test file has one only


class AvaCaptions(FolderSource, about=__file__):
    """AVA-Captions, or the comments that it was made from."""

    settings_type = AvaCaptionsSettings
    settings: AvaCaptionsSettings

    @cached_property
    def ava(self) -> Ava:
        """The dataset whose photographs these are."""
        return Ava("ava", {"root": self.settings.ava} if self.settings.ava else {}, self.seed, self.layout)

    @cached_property
    def available(self) -> dict[str, Path]:
        """Files of both folders that are read."""
        return {**super().available, f"ava/{TEST_LIST}": self.ava.test_list}

    @cached_property
    def images(self) -> ImageIndex:
        """AVA's photographs."""
        return self.ava.images

    @cached_property
    def validation(self) -> Path:
        """The official test set, which its authors call validation."""
        return self.find(f"**/{VALIDATION}")

    @cached_property
    def table(self) -> Path:
        """The file with the comments, the cleanest that is there."""
        return self.find(f"**/{CLEANED}", "**/CLEAN_AVA_FULL_COMMENTS.json", f"**/{COMMENTS}")

    def labels(self) -> Iterable[Path]:
        return [self.table, self.validation, self.ava.test_list]

    @cached_property
    def _training(self) -> tuple[pd.DataFrame, int]:
        """Comments on all photographs but the test ones, AVA's included, and lines that had no photograph."""
        if self.table.suffix != ".txt":
            found, without = read_karpathy(self.table, self.settings.text), 0
        elif self.settings.text == "raw":
            found, without = read_comments(self.table)
        else:
            raise SourceError(
                f"{self.table}: these comments are as they were written; set data.datasets.{self.name}.text to raw, "
                f"or put {CLEANED} beside it"
            )
        return found[~found["item_id"].isin(self._test[0])], without

    @cached_property
    def _test(self) -> tuple[frozenset[str], pd.DataFrame]:
        """Photographs of the official test set and their captions."""
        return read_coco(self.validation)

    @cached_property
    def left_out(self) -> frozenset[str]:
        """Photographs of AVA's test set that would be training ones here."""
        return frozenset(self._training[0]["item_id"]) & self.ava.test_ids

    @cached_property
    def captions(self) -> pd.DataFrame:
        """Every comment that is used: columns item_id, text; ordered by photograph, then as in the file."""
        training = self._training[0]
        used = pd.concat([training[~training["item_id"].isin(self.left_out)], self._test[1]], ignore_index=True)
        return used.iloc[used["item_id"].astype(int).argsort(kind="stable")].reset_index(drop=True)

    def wanted(self) -> Mapping[str, str]:
        """Photographs with comments, and those of the test set."""
        known = sorted({*self.captions["item_id"], *self._test[0]}, key=int)
        return {item_id: item_id for item_id in known}

    def splits(self) -> Mapping[str, tuple[str, str]]:
        test = self._test[0]
        return {one: ("test", TEST_RULE) if one in test else ("train", TRAIN_RULE) for one in self.wanted()}

    def comments(self, items: pd.DataFrame) -> pd.DataFrame:
        """The comments, numbered from 0 for each photograph."""
        rows = self.captions[self.captions["item_id"].isin(items["item_id"])]
        number = rows.groupby("item_id").cumcount().astype(str)
        return rows.assign(comment_id=rows["item_id"] + "/" + number, aspect=None, origin="human")

    def counts(self) -> dict[str, int]:
        """And AVA's test photographs that were left out, and lines of the raw file that name no photograph."""
        return {**super().counts(), "ava_test_left_out": len(self.left_out), "lines_left_out": self._training[1]}


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
    """Columns item_id (photographs' numbers) and text, in the file's order; empty captions are left out."""
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


SOURCE = AvaCaptions
