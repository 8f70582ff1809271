"""Unpacking archives that strangers packed: only plain files, only below the target, only as much as was announced."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from calm.data.download import require_space
from calm.data.errors import ArchiveError
from calm.data.progress import progress
from calm.io import atomic_dir

MAX_RATIO = 200  # unpacked to packed bytes of a whole archive; text tables reach some 20
FREE_BYTES = 2**30  # unpacked bytes below which no ratio is a bomb
_BLOCK = 2**20
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, RuntimeError)


@dataclass(frozen=True)
class _Member:
    """One file in an archive."""

    name: str  # as packed
    size: int  # bytes, as announced
    link_or_device: bool
    open: Callable[[], IO[bytes]]


def extract(archive: Path, target: Path) -> list[str]:
    """Unpack a zip or tar (plain, gz, bz2, xz) into a folder: nothing is there before all of it could be unpacked.

    Every member is looked at before the first byte is written. Owners, modes and times are not taken over.

    Returns:
        The files, relative to target, sorted.

    Raises:
        ArchiveError: an absolute or `..` path, a link, a device, the same path twice, an encrypted or damaged member,
            more bytes than announced, or a bomb (more than `MAX_RATIO` times the archive).
        DownloadError: the disk has no space for it.
    """
    with _opened(archive) as members:
        plan = _plan(archive, members())
        total = sum(member.size for member in plan.values())
        require_space(target, total)
        target.mkdir(parents=True, exist_ok=True)
        with (
            atomic_dir(target / f".{archive.name}.unpacked") as folder,
            progress(f"unpack {archive.name}", total, "bytes") as advance,
        ):
            # A compressed tar can only be read forwards: in the order of the archive, and in a pass of its own.
            for member in members():
                place = safe_path(archive, member.name)
                if place in plan:
                    _write(archive, member, folder / place, advance)
        _move_in(target / f".{archive.name}.unpacked", target, sorted(plan))
    return sorted(plan)


def safe_path(archive: Path, name: str) -> str:
    """A member's path with slashes, below the target.

    Raises:
        ArchiveError: it is absolute, has `..` or a drive, or is nothing at all.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name or not path.parts:
        raise ArchiveError(f"{archive}: member {name!r} would leave the folder: the archive is not to be trusted")
    return path.as_posix()


def _plan(archive: Path, members: Iterator[_Member]) -> dict[str, _Member]:
    """Every member by its safe path, if the whole archive may be unpacked."""
    plan: dict[str, _Member] = {}
    allowed = max(FREE_BYTES, MAX_RATIO * archive.stat().st_size)
    total = 0
    try:
        for member in members:
            place = safe_path(archive, member.name)
            if member.link_or_device:
                raise ArchiveError(f"{archive}: member {member.name!r} is a link or device: not to be trusted")
            if place in plan:
                raise ArchiveError(f"{archive}: member {member.name!r} is there twice")
            plan[place] = member
            total += member.size
            if total > allowed:  # told by headers alone: a bomb is not even read to its end
                raise ArchiveError(
                    f"{archive}: {archive.stat().st_size:,} bytes would become more than {allowed:,}: a bomb"
                )
    except _DAMAGE as error:
        raise _damaged(archive, error) from None
    files = set(plan)
    for place in plan:
        above = next((str(folder) for folder in PurePosixPath(place).parents if str(folder) in files), None)
        if above is not None:
            raise ArchiveError(f"{archive}: {above!r} is a file and a folder at once")
    return plan


def _write(archive: Path, member: _Member, path: Path, advance: Callable[[int], None]) -> None:
    """Write one file, and never more of it than was announced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    try:
        with member.open() as source, path.open("xb") as file:
            while block := source.read(_BLOCK):
                written += len(block)
                if written > member.size:
                    break
                file.write(block)
                advance(len(block))
    except _DAMAGE as error:
        raise _damaged(archive, error, member.name) from None
    if written != member.size:
        raise ArchiveError(f"{archive}: member {member.name!r} does not have the {member.size:,} bytes announced")


def _move_in(folder: Path, target: Path, places: list[str]) -> None:
    """Rename unpacked files into the target, over those of an earlier time."""
    for place in places:
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / place, target / place)
    shutil.rmtree(folder)


def _damaged(archive: Path, error: Exception, name: str | None = None) -> ArchiveError:
    where = f"{archive}: member {name!r}" if name else f"{archive}"
    return ArchiveError(f"{where}: damaged or encrypted ({type(error).__name__}: {error}); download it again")


@contextmanager
def _opened(archive: Path) -> Iterator[Callable[[], Iterator[_Member]]]:
    """A function that goes through the members of an archive, each time from the start."""
    if zipfile.is_zipfile(archive):
        try:
            with zipfile.ZipFile(archive) as packed:
                yield lambda: _zip_members(packed)
        except zipfile.BadZipFile as error:
            raise _damaged(archive, error) from None
    elif tarfile.is_tarfile(archive):
        yield lambda: _tar_members(archive)
    else:
        raise ArchiveError(f"{archive}: neither a whole zip nor a whole tar: download it again, or unpack it by hand")


def _zip_members(packed: zipfile.ZipFile) -> Iterator[_Member]:
    for info in packed.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where it was packed without Unix modes
        if not info.is_dir():
            odd = kind not in (0, stat.S_IFREG)
            yield _Member(info.filename, info.file_size, odd, lambda info=info: packed.open(info))  # type: ignore[misc]


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, "r:*") as packed:
        for info in packed:
            if not info.isdir():
                read = cast(Callable[[], IO[bytes]], lambda info=info: packed.extractfile(info))
                yield _Member(info.name, info.size, not info.isreg(), read)


__all__ = ["extract", "safe_path"]
