"""What a dataset is: a folder of `calm/data/sources/` with a `Source` in its `__init__.py`, named `SOURCE`.

A source says where its photographs lie, which split and group they belong to, and what people (or, called so, a
synthetic process) said of them. It never decodes a photograph: `calm.data.prepare` does, once, in the same way for all.
A dataset that lies in a folder, loose or in archives, extends `calm.data.reading.folder.FolderSource`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from PIL import Image
from pydantic import ConfigDict, Field
from ruamel.yaml import YAML

from calm.data import SourceError
from calm.data.obtain.archives import ImageRef
from calm.data.obtain.ways import Card, Obtain
from calm.io import atomic_dir, sha256_file, write_json
from calm.layout import Layout
from calm.params import Params
from calm.settings import Section, checked

MANIFEST = "manifest.json"
Rows = list[dict[str, Any]] | pd.DataFrame  # of a table in calm.data.store.tables; frames where there are very many


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

    `name` is the manifest's name of its file, or of the archive that it lies in: then `ref` says where in it. `group`
    holds near-duplicates together; `split` is the official one.
    """

    item_id: str
    name: str
    path: Path
    group: str
    licence: str
    split: str | None = None
    split_rule: str | None = None  # what published it, such as "AVA generic_test.jpgl"
    ref: ImageRef | None = None  # None: a file of its own

    @property
    def packed(self) -> bool:
        """True in an archive: the manifest then has the archive's hash and not the photograph's."""
        return self.ref is not None and self.ref.member is not None

    @property
    def label(self) -> str:
        """How messages and the quarantine call it."""
        return f"{self.name}: {self.ref.name}" if self.packed and self.ref is not None else self.name

    def read_bytes(self) -> bytes:
        """The photograph as published."""
        return self.ref.read() if self.ref is not None else self.path.read_bytes()


@dataclass(frozen=True)
class View:
    """A synthetic picture made of a photograph, and the JSON of the edits that made it."""

    item_id: str
    image: Image.Image
    edits: str


class Settings(Section):
    """Settings under params.data.datasets.NAME. A source extends this; unknown keys are errors."""


class About(Section):
    """What a `card.yaml` says of a dataset; the class attributes of `Source` of the same names."""

    model_config = ConfigDict(strict=False)  # of lists, tuples are made

    card: Card
    obtain: tuple[Obtain, ...] = ()
    published: Mapping[str, int] = Field(default_factory=dict)
    explained: Mapping[str, str] = Field(default_factory=dict)


class Source:
    """Base class of datasets.

    A subclass sets `card`, extends `Settings` if it has any, and writes `files` and `photographs`; the rest has
    defaults. Everything must come in an order that does not depend on the machine. With `about=__file__` the card and
    what goes with it are read from the `card.yaml` beside that file.

    Class attributes:
        settings_type: class of `settings`.
        published: counts that the dataset's authors give, by the keys of `counts`.
        explained: for keys of `published`, why what calm reads differs by design.
        obtain: how to get it, in this order.
    """

    card: ClassVar[Card]
    settings_type: ClassVar[type[Settings]] = Settings
    published: ClassVar[Mapping[str, int]] = {}
    explained: ClassVar[Mapping[str, str]] = {}
    obtain: ClassVar[tuple[Obtain, ...]] = ()

    def __init_subclass__(cls, about: str | None = None) -> None:
        if about is not None:
            path = Path(about).with_name("card.yaml")
            told = checked(About, YAML(typ="safe").load(path.read_text(encoding="utf-8")), str(path))
            for name in told.model_fields_set:
                setattr(cls, name, getattr(told, name))

    def __init__(self, name: str, settings: dict[str, Any], seed: int, layout: Layout | None = None) -> None:
        self.name = name
        self.seed = seed
        self.layout = layout or Layout()
        self.settings = checked(self.settings_type, settings, "params", prefix=f"data.datasets.{name}.")

    def agree(self, params: Params) -> None:
        """Compare the settings with those of other sections of `params`.

        Raises:
            ParamsError: they contradict one another; the message names both keys.
        """

    def files(self) -> Iterable[RawFile]:
        """Every file that the dataset consists of, wherever it lies. Raises `SourceError` for what is missing."""
        raise NotImplementedError

    def photographs(self) -> Iterator[Photograph]:
        """Every photograph of the dataset."""
        raise NotImplementedError

    def views(self, photograph: Photograph, image: Image.Image) -> Sequence[View]:
        """Synthetic pictures made of one decoded photograph. Must depend on nothing but seed, photograph and image."""
        return ()

    def ratings(self, items: pd.DataFrame) -> Rows:
        """Rows of RATING for prepared `items` (ITEM), without `dataset`; optional columns left out are null.

        Rows of other items are left out by whoever calls this.
        """
        return []

    def comments(self, items: pd.DataFrame) -> Rows:
        """Rows of COMMENT for prepared `items`, without `dataset` and `text_clean`; as `ratings`."""
        return []

    def absent(self) -> Mapping[str, str]:
        """Items that the labels speak of and whose photograph is not there, as item_id: name; they are quarantined."""
        return {}

    def counts(self) -> dict[str, int]:
        """What is there, from labels and file names alone: no photograph is decoded.

        Keys: images (photographs that are there), train, validation, test (by official split), scored (items with a
        crowd's score), ratings (by single raters), raters, comments, captions. A source may add others. The labels of
        absent photographs are counted too.
        """
        rows = [(one.item_id, one.group, one.split) for one in self.photographs()]
        found = {"images": len(rows)}
        items = pd.DataFrame(rows, columns=["item_id", "group", "split"])
        found |= {split: int((items["split"] == split).sum()) for split in ("train", "validation", "test")}
        absent = pd.DataFrame({"item_id": list(self.absent())}, dtype=object)
        items = pd.concat([items, absent], ignore_index=True).assign(synthetic_edits=None)
        ratings = pd.DataFrame(self.ratings(items)).reindex(columns=["item_id", "rater_id"])
        found["scored"] = int(ratings.loc[ratings["rater_id"].isna(), "item_id"].nunique())
        found["ratings"] = int(ratings["rater_id"].notna().sum())
        found["raters"] = int(ratings["rater_id"].nunique())
        comments = pd.DataFrame(self.comments(items)).reindex(columns=["aspect"])
        found["captions"] = int((comments["aspect"] == "caption").sum())
        found["comments"] = len(comments) - found["captions"]
        return found

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
        card = {key: value for key, value in asdict(self.card).items() if value}
        with atomic_dir(raw) as folder:
            write_json(folder / MANIFEST, {"dataset": self.name, "card": card, "files": entries})


def comment_row(item_id: str, number: str, text: str, aspect: str | None, origin: str) -> dict[str, Any]:
    """A row of COMMENT, for `Source.comments`; `number` tells the comments of an item apart."""
    return {"item_id": item_id, "comment_id": f"{item_id}/{number}", "text": text, "aspect": aspect, "origin": origin}


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
