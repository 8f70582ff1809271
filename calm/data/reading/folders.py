"""Photographs that are published in several sizes under the same names: one of the sizes is taken."""

from __future__ import annotations

from pathlib import Path

from calm.data.obtain.archives import ImageIndex


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
