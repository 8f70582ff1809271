"""Photographs wherever they lie: loose in folders, in tar and zip archives, in parquet files of a hub."""

from __future__ import annotations

import bisect
import itertools
import os
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

from calm.data import ArchiveError, SourceError
from calm.data.store.images import SUFFIXES

if TYPE_CHECKING:  # parquet files import it: whoever asks for a score of a folder need not wait for it
    import pyarrow as pa

_COLUMN = "image"  # of a hub's parquet files
_LOOSE, _ARCHIVED, _TABLED = range(3)  # the same photograph lying loose and in an archive: the loose one is taken
# Archives that cannot be read at random: the whole file would be unpacked for every photograph.
_SEALED = re.compile(r"\.(tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz|7z|rar|7z\.\d+|zip\.\d+|z\d\d)$", re.IGNORECASE)

_READING = threading.Lock()  # a container is opened by one thread, and a row group read by one


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One photograph and where its bytes lie.

    `name` is its path below the dataset's folder, or its path in its container; `file` is what the manifest calls the
    file or container at `path`. `member` is None for a file of its own, else its place: offset and size in a tar, the
    member's name in a zip, the row in a parquet file.
    """

    name: str
    file: str
    path: Path
    member: tuple[int, int] | str | int | None = None

    @property
    def stem(self) -> str:
        """The file's name without folders and suffix."""
        return PurePosixPath(self.name).stem

    @property
    def locality(self) -> tuple[str, int]:
        """Order in which reading is cheap: rows of a parquet file come in groups, all else in any order."""
        return (self.file, self.member) if isinstance(self.member, int) else ("", 0)

    def read(self) -> bytes:
        """The bytes of the photograph as published; safe to call from threads.

        Raises:
            OSError: the file cannot be read.
            ArchiveError: the container is damaged here.
        """
        if self.member is None:
            return self.path.read_bytes()
        if isinstance(self.member, tuple):
            return _read_span(self.path, *self.member)
        if isinstance(self.member, str):
            return _read_zipped(self.path, self.member)
        return _read_row(self.path, self.member)


class ImageIndex:
    """The photographs below a folder by path, by file name and by stem.

    Args:
        root: the dataset's folder; links to other folders are followed.
        patterns: globs relative to root, of photographs and of containers (`**/` stands for any folders or none;
            upper and lower case are one). Hidden files are left out.
        id_column: of parquet files, naming photographs whose `path` is empty.

    The same name at two places is no error until it is asked for, and never one if exactly one of them lies loose:
    an archive beside what was unpacked from it is common.
    """

    def __init__(self, root: Path, patterns: Sequence[str] = ("**/*",), id_column: str | None = None) -> None:
        self.root = root
        self.sealed: list[str] = []
        self._by_name: dict[str, list[tuple[int, ImageRef]]] = {}
        self._refs: list[ImageRef] = []
        for file in matching(files_below(root), patterns):
            suffix = PurePosixPath(file).suffix.lower()
            path = root / file
            if suffix in SUFFIXES:
                self._add(_LOOSE, ImageRef(file, file, path))
            elif _SEALED.search(file):
                self.sealed.append(file)
            elif suffix in {".tar", ".zip"}:
                for ref in (_in_tar if suffix == ".tar" else _in_zip)(file, path):
                    self._add(_ARCHIVED, ref)
            elif suffix == ".parquet":
                for ref in _in_parquet(file, path, id_column):
                    self._add(_TABLED, ref)

    def _add(self, rank: int, ref: ImageRef) -> None:
        self._refs.append(ref)
        name = PurePosixPath(ref.name)
        for key in {ref.name, name.name, name.stem}:
            self._by_name.setdefault(key, []).append((rank, ref))

    def __len__(self) -> int:
        return len(self._refs)

    def __iter__(self) -> Iterator[ImageRef]:
        """Every photograph, by file and then by place in it."""
        return iter(self._refs)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def get(self, name: str) -> ImageRef | None:
        """The photograph of this path, file name or stem; None if there is none.

        Raises:
            SourceError: two files have this name; the message names both.
        """
        found = self._by_name.get(name)
        if not found:
            return None
        best = min(rank for rank, _ in found)
        refs = [ref for rank, ref in found if rank == best]
        if len(refs) > 1:
            first, second = (f"{ref.file}: {ref.name}" if ref.member is not None else ref.file for ref in refs[:2])
            raise SourceError(f"{self.root}: two photographs are called '{name}': {first} and {second}; keep one")
        return refs[0]

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that no photograph has, in their order."""
        return [name for name in names if name not in self._by_name]

    def advice(self) -> str:
        """What to do about archives that cannot be read at random; empty if there are none."""
        if not self.sealed:
            return ""
        return f"; {', '.join(self.sealed[:3])} cannot be read at random: unpack it there, or repack it as .tar or .zip"


def below(folder: str) -> tuple[str, ...]:
    """Globs of a folder's content, wherever the folder lies, and of archives that are named after it."""
    return (f"**/{folder}/**/*", f"**/*{folder}.zip", f"**/*{folder}.tar")


def first_of(root: Path, *folders: str) -> tuple[ImageIndex, tuple[str, ...]]:
    """The photographs of the first of some folders that has any, and their globs; without any, all below root."""
    for folder in folders:
        found = ImageIndex(root, below(folder))
        if len(found):
            return found, below(folder)
    return ImageIndex(root), ("**/*",)


def located(images: ImageIndex, paths: Iterable[str]) -> dict[str, str]:
    """For each published path the name that it has in the index: the same, or below further folders.

    Names of files alone do not do: those of COCO, Visual Genome and GQA overlap. Paths that are nowhere stay.
    """
    wanted = {path: path for path in paths}
    for ref in images:
        parts = PurePosixPath(ref.name).parts
        for start in range(len(parts)):
            path = "/".join(parts[start:])
            if path in wanted and wanted[path] == path:
                wanted[path] = ref.name
                break
    return wanted


@dataclass
class LeftOut:
    """What `files_below` does not give: hidden files, linked folders that were met already, folders it cannot read."""

    hidden: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    closed: list[OSError] = field(default_factory=list)


def files_below(root: Path, left_out: LeftOut | None = None) -> list[str]:
    """Every file below a folder as a relative path with slashes, sorted; links are followed, each folder read once."""
    found: list[str] = []
    seen: set[str] = set()
    left_out = LeftOut() if left_out is None else left_out
    for folder, inside, names in os.walk(root, followlinks=True, onerror=left_out.closed.append):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            left_out.again.append(folder)
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if not _hidden(name))
        relative = Path(folder).relative_to(root)
        found += [(relative / name).as_posix() for name in names if not _hidden(name)]
        left_out.hidden += [os.path.join(folder, name) for name in names if _hidden(name)]
    return sorted(found)


def matching(files: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The files that match any of the globs, in the order of `files`."""
    regexes = [glob_regex(pattern) for pattern in patterns]
    return [file for file in files if any(regex.fullmatch(file) for regex in regexes)]


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob over relative paths with slashes: `*` and `?` stay within a folder, `**/` crosses any number of them."""
    parts = pattern.split("/")
    text = "".join(
        "(?:[^/]+/)*" if part == "**" else _segment(part) + ("/" if number < len(parts) - 1 else "")
        for number, part in enumerate(parts)
    )
    return re.compile(text + ("[^/]*" if parts[-1] == "**" else ""), re.IGNORECASE)


def _segment(part: str) -> str:
    return re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_photograph(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(_hidden(part) for part in path.parts if part != ".")


def _in_tar(file: str, path: Path) -> Iterator[ImageRef]:
    """Photographs in an uncompressed tar; links and folders are none."""
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if info.isreg() and _is_photograph(info.name):
                    yield ImageRef(info.name, file, path, (info.offset_data, info.size))
    except tarfile.TarError as error:
        raise ArchiveError(f"{path}: not a whole, uncompressed tar ({error}): download it again or unpack it") from None


def _in_zip(file: str, path: Path) -> Iterator[ImageRef]:
    """Photographs in a zip."""
    for info in _zip(path).infolist():
        if not info.is_dir() and _is_photograph(info.filename):
            yield ImageRef(info.filename, file, path, info.filename)


def _in_parquet(file: str, path: Path, id_column: str | None) -> Iterator[ImageRef]:
    """Photographs in a hub's parquet file: bytes or struct(bytes, path); none if it has no column of images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if _COLUMN not in names:
                return
            kind = table.schema_arrow.field(_COLUMN).type
            has_path = pa.types.is_struct(kind) and any(field.name == "path" for field in kind)
            wanted = [f"{_COLUMN}.path"] * has_path + [id_column] * (id_column in names)
            rows = table.read(columns=wanted).to_pylist() if wanted else [{}] * table.metadata.num_rows
    except pa.ArrowException as error:
        raise ArchiveError(f"{path}: not a whole parquet file ({error}): download it again") from None
    for number, row in enumerate(rows):
        named = (row.get(_COLUMN) or {}).get("path") or row.get(id_column) or f"{PurePosixPath(file).stem}-{number:06d}"
        yield ImageRef(str(named), file, path, number)


def _read_span(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise ArchiveError(f"{path}: ends too early; download it again")
    return data


def _read_zipped(path: Path, member: str) -> bytes:
    try:
        with _READING:
            archive = _zip(path)
        return archive.read(member)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # damaged, encrypted, odd compression
        raise ArchiveError(f"{path}: {member} cannot be read ({error}): download it again, or unpack it") from None


@lru_cache(maxsize=64)
def _zip(path: Path) -> zipfile.ZipFile:
    """An open zip: its table of contents is read once, and reading from threads is zipfile's own promise."""
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ArchiveError(f"{path}: not a whole zip ({error}): download it again") from None


def _read_row(path: Path, row: int) -> bytes:
    starts = _group_starts(path)
    group = bisect.bisect_right(starts, row) - 1
    with _READING:
        values = _row_group(path, group)
    value = values[row - starts[group]].as_py()
    data = value["bytes"] if isinstance(value, dict) else value
    if not data:
        raise ArchiveError(f"{path}: row {row} holds no bytes of a photograph")
    return cast(bytes, data)


@lru_cache(maxsize=64)
def _group_starts(path: Path) -> list[int]:
    """The first row of each row group."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    return [0, *itertools.accumulate(sizes[:-1])]


@lru_cache(maxsize=2)
def _row_group(path: Path, group: int) -> pa.ChunkedArray:
    """The photographs of one row group, which can only be read as a whole."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        return table.read_row_group(group, columns=[_COLUMN]).column(_COLUMN)
