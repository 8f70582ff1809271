"""Finding photographs by the names that people type, reading them ahead of the model, answers given before."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import calm
from calm.cli.printing import tell

if TYPE_CHECKING:
    from PIL.Image import Image

    from calm.data.obtain.archives import LeftOut
    from calm.data.store.images import ImageError

ROOM = 2**28  # bytes of all answers; the oldest go first
THREADS = min(4, os.cpu_count() or 1)
UNREAD = {".jp2", ".jxl", ".psd"}


def find_photographs(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Expand folders (with all below them) and globs; linked folders are entered, each once, hidden files left out.

    Returns:
        The files, each once, in the order of `names`; and a message for every name that leads to none.
    """
    files: dict[str, None] = {}
    problems: list[str] = []
    for name in names:
        try:
            here, problem = _named(name)
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            here, problem = [], f"{name}: {error.strerror}"
        files.update(dict.fromkeys(here))
        if not here:
            problems.append(problem)
    return list(files), problems


def _named(name: str) -> tuple[list[str], str]:
    """Files of one name, and what to say if there are none."""
    if not name.strip():  # Path("") is the current folder
        return [], "an empty name: is a variable of the shell not set?"
    path = Path(name)
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return [name], ""
    if not glob.has_magic(name):
        return [], f"{name}: no such file or folder"
    before, deep, after = name.partition("**")
    if not deep:
        found = [Path(file) for file in glob.glob(name)]
    else:  # glob itself would follow a link to the folder it lies in as often as the system lets it
        folders = [Path(folder) for folder in glob.glob(before or ".") if Path(folder).is_dir()]
        last = after.strip("/") or "*"
        found = [file for folder in folders for file in _below(folder) if file.match(last)]
    return sorted(str(file) for file in found if file.is_file()), f"{name}: no file matches"


def _in_folder(folder: Path) -> tuple[list[str], str]:
    from calm.data.store.images import SUFFIXES
    from calm.data.store.pixels import RAW_SUFFIXES

    raw_is_read = find_spec("rawpy") is not None
    read, unread = ({*SUFFIXES, *RAW_SUFFIXES}, UNREAD) if raw_is_read else ({*SUFFIXES}, {*UNREAD, *RAW_SUFFIXES})
    files = _below(folder)
    counts = Counter(suffix for file in files if (suffix := file.suffix.lower()) in unread)
    if counts:  # or a table would be taken for the whole folder
        named = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
        hint = "; pip install rawpy to read cameras' RAW files" if counts.keys() & {*RAW_SUFFIXES} else ""
        typer.echo(f"{folder}: skipped, in formats that calm does not read: {named}{hint}", err=True)
    here = [str(file) for file in files if file.suffix.lower() in read]
    return here, f"{folder}: no photograph in this folder ({', '.join(sorted(read))})"


def _below(folder: Path) -> list[Path]:
    """Every file below a folder; what is left out is told.

    Raises:
        OSError: the folder itself cannot be read.
    """
    from calm.data.obtain.archives import LeftOut, files_below

    left_out = LeftOut()
    files = [folder / file for file in files_below(folder, left_out)]
    _tell_left_out(folder, left_out)
    return files


def _tell_left_out(folder: Path, left_out: LeftOut) -> None:
    for error in left_out.closed:
        if error.filename == str(folder):
            raise error
        tell(f"{error.filename}: {error.strerror}")
    from calm.data.store.images import SUFFIXES

    hidden = [name for name in left_out.hidden if name.lower().endswith(SUFFIXES)]
    for what, names in {"hidden": hidden, "links to folders that were met already": left_out.again}.items():
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            typer.echo(f"{folder}: skipped, {what}: {len(names)} ({shown})", err=True)


def read_photographs(
    paths: Sequence[str], batch_size: int, max_side: int
) -> Iterator[tuple[list[str], dict[str, Image]]]:
    """Batches of photographs: what they are called, and those of them that can be read; the others are told.

    Threads read ahead of whoever takes them, a few photographs at most: memory does not grow with their number. The
    longer side is scaled down to `max_side` pixels.
    """
    from calm.data.progress import in_order
    from calm.data.store.images import MIN_SIDE

    with ThreadPoolExecutor(THREADS) as pool:
        results = in_order(pool, partial(_read, max_side=max_side), paths, 2 * THREADS)
        names = iter(paths)
        while batch := list(islice(names, batch_size)):
            readable: dict[str, Image] = {}
            for path, image in zip(batch, results, strict=False):
                if isinstance(image, Exception):
                    tell(str(image))
                    continue
                if min(image.size) < MIN_SIDE:
                    small = f"{image.width}x{image.height} pixels"
                    typer.echo(f"{path}: {small}, as calm looks at it: too narrow for an answer to mean much", err=True)
                readable[path] = image
            yield batch, readable


def _read(path: str, max_side: int) -> Image | ImageError:
    from calm.assistant.inputs import opened
    from calm.data.store.images import ImageError

    try:
        return opened(path, max_side)
    except ImageError as error:
        return error


class Remembered:
    """Rows of one question put to one model.

    Args:
        question: what decides the answer beside the photograph; None remembers nothing.
    """

    def __init__(self, question: Mapping[str, Any] | None) -> None:
        self._cache: Any = None
        files = Path(calm.__file__).parent.rglob("*.*")  # code and catalogue, which decide the answer
        code = max(path.stat().st_mtime_ns for path in files if path.suffix in {".py", ".yaml"})
        self._question = json.dumps([question, code], sort_keys=True)
        if question is not None:
            from diskcache import Cache, JSONDisk
            from platformdirs import user_cache_dir

            folder = Path(user_cache_dir("calm")) / "answers"
            try:
                self._cache = Cache(str(folder), disk=JSONDisk, size_limit=ROOM)
            except Exception as error:  # sqlite's, or the system's
                typer.echo(f"{folder}: answers cannot be kept here ({error}): nothing is remembered", err=True)

    def key(self, path: str) -> str | None:
        """What the answer about a file is kept under; None where nothing is, or the file cannot be read."""
        from calm.io import sha256_file, sha256_text

        with suppress(OSError, ValueError):
            return None if self._cache is None else sha256_text(sha256_file(Path(path)) + self._question)
        return None

    def get(self, key: str | None) -> dict[str, Any] | None:
        """The row that was kept; a memory that is damaged or taken costs the memory of it, not the answer."""
        found: dict[str, Any] | None = None
        if key is not None:
            with suppress(Exception):
                found = self._cache.get(key)
        return found

    def keep(self, key: str | None, row: Mapping[str, Any]) -> None:
        """Keep a row; a disk that is full costs the memory of it, not the answer."""
        if key is not None:
            with suppress(Exception):
                self._cache.set(key, dict(row))
