"""Finding photographs by the names that people type, and reading them."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from calm.cli.errors import tell

if TYPE_CHECKING:
    from PIL.Image import Image

UNREAD = {  # formats of phones and cameras
    *(".3fr", ".arw", ".avif", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".hif", ".jp2", ".jxl", ".nef", ".nrw"),
    *(".orf", ".pef", ".psd", ".raf", ".raw", ".rw2", ".srw", ".x3f"),
}


def find_photographs(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Expand folders (with all below them) and globs.

    Returns:
        The files, each once, in the order of `names`; and a message for every name that leads to none.
    """
    from calm.data.store.images import SUFFIXES

    files: dict[str, None] = {}
    problems: list[str] = []
    for name in names:
        path = Path(name)
        if not name.strip():  # Path("") is the current folder
            here, problem = [], "an empty name: is a variable of the shell not set?"
        elif path.is_dir():
            # macOS leaves "._photo.jpg" on other systems' disks: no photograph, whatever its name says.
            found = [p for p in path.rglob("*") if p.is_file() and not p.name.startswith("._")]
            here = sorted(str(p) for p in found if p.suffix.lower() in SUFFIXES)
            tell_passed_over(name, found)
            problem = f"{name}: no photograph in this folder ({', '.join(SUFFIXES)})"
        elif path.exists():
            here, problem = [name], ""
        elif glob.has_magic(name):
            here = sorted(p for p in glob.glob(name, recursive=True) if Path(p).is_file())
            problem = f"{name}: no file matches"
        else:
            here, problem = [], f"{name}: no such file or folder"
        files.update(dict.fromkeys(here))
        if not here:
            problems.append(problem)
    return list(files), problems


def tell_passed_over(folder: str, files: Iterable[Path]) -> None:
    """Count photographs in formats that calm does not read, so that nobody takes a table for the whole folder."""
    counts = Counter(suffix for file in files if (suffix := file.suffix.lower()) in UNREAD)
    if counts:
        named = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
        typer.echo(f"{folder}: skipped, in formats that calm does not read: {named}", err=True)


def read_photographs(paths: Sequence[str]) -> Iterator[tuple[str, Image]]:
    """Read photographs; tell of those that cannot be read and leave them out."""
    from calm.assistant.inputs import opened
    from calm.data.store.images import ImageError

    for path in paths:
        try:
            yield path, opened(path)
        except ImageError as error:
            tell(str(error))
