"""Photographs of Pexels: a folder or archives of them, without labels.

The paper names Pexels among its unlabelled sets and says neither how many photographs nor which: whatever lies in the
folder is taken.
"""

from __future__ import annotations

from calm.data.reading.folder import FolderSource


class Pexels(FolderSource, about=__file__):
    """Unlabelled photographs."""


SOURCE = Pexels
