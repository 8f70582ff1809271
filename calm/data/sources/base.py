"""What a dataset is: one file in this folder with a `Source` in it, named `SOURCE`.

A source says where its photographs lie, which split and group they belong to, and what people (or, called so, a
synthetic process) said of them. It never decodes a photograph: `calm.data.prepare` does, once, in the same way for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from PIL import Image

from calm.io import atomic_dir, sha256_file, write_json
from calm.params import Section, checked

MANIFEST = "manifest.json"


class SourceError(ValueError):
    """Files of a dataset that are missing or not as they must be; the message names them and what to do."""


@dataclass(frozen=True)
class Card:
    """What a reader should know before using a dataset."""

    title: str
    task: str
    size: str
    licence: str
    terms: str
    citation: str
    home: str


@dataclass(frozen=True)
class RawFile:
    """A file of a dataset: `name` is what the manifest calls it, `path` where it lies on this machine."""

    name: str
    path: Path
    licence: str
    sha256: str | None = None  # expected; None = not known before it is fetched


@dataclass(frozen=True)
class Photograph:
    """One photograph before it is decoded.

    `name` is the manifest's name of its file; `group` holds near-duplicates together; `split` is the official one.
    """

    item_id: str
    name: str
    path: Path
    group: str
    licence: str
    split: str | None = None
    split_rule: str | None = None  # what published it, such as "AVA generic_test.jpgl"

    def read_bytes(self) -> bytes:
        """The file as published. A source with archives overrides this."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class View:
    """A synthetic picture made of a photograph, and the JSON of the edits that made it."""

    item_id: str
    image: Image.Image
    edits: str


class Settings(Section):
    """Settings under params.data.datasets.NAME. A source extends this; unknown keys are errors."""


class Source:
    """Base class of datasets.

    A subclass sets `card`, extends `Settings` if it has any, and writes `files` and `photographs`; the rest has
    defaults. Everything must come in an order that does not depend on the machine.
    """

    card: ClassVar[Card]
    settings_type: ClassVar[type[Settings]] = Settings

    def __init__(self, name: str, settings: dict[str, Any], seed: int) -> None:
        self.name = name
        self.seed = seed
        self._settings = checked(self.settings_type, settings, "params", prefix=f"data.datasets.{name}.")

    def files(self) -> Iterable[RawFile]:
        """Every file that the dataset consists of, wherever it lies. Raises `SourceError` for what is missing."""
        raise NotImplementedError

    def photographs(self) -> Iterator[Photograph]:
        """Every photograph of the dataset."""
        raise NotImplementedError

    def views(self, photograph: Photograph, image: Image.Image) -> Sequence[View]:
        """Synthetic pictures made of one decoded photograph. Must depend on nothing but seed, photograph and image."""
        return ()

    def ratings(self, items: pd.DataFrame) -> list[dict[str, Any]]:
        """Rows of RATING for prepared `items` (ITEM), without `dataset`; optional columns left out are null."""
        return []

    def comments(self, items: pd.DataFrame) -> list[dict[str, Any]]:
        """Rows of COMMENT for prepared `items`, without `dataset` and `text_clean`."""
        return []

    def fetch(self, raw: Path) -> None:
        """Hash every file against what is known of it and write the manifest; no bytes are copied.

        Raises:
            SourceError: a file is missing or has another sha256 than expected.
        """
        entries = []
        for file in self.files():
            found = checked_sha256(file)
            entries.append(
                {"name": file.name, "sha256": found, "size": file.path.stat().st_size, "licence": file.licence}
            )
        if not entries:
            raise SourceError(f"dataset '{self.name}': no files found")
        with atomic_dir(raw) as folder:
            write_json(folder / MANIFEST, {"dataset": self.name, "card": asdict(self.card), "files": entries})


def checked_sha256(file: RawFile) -> str:
    """sha256 of a file, compared with the expected one where there is one."""
    if not file.path.is_file():
        raise SourceError(f"{file.name}: {file.path} does not exist")
    found = sha256_file(file.path)
    if file.sha256 is not None and found != file.sha256:
        raise SourceError(
            f"{file.name}: {file.path} has sha256 {found}, expected {file.sha256}: "
            "it is another version or damaged; install or download it again"
        )
    return found
