"""Photographs of Pexels: a folder or archives of them, without labels.

The paper names Pexels among its unlabelled sets and says neither how many photographs nor which: whatever lies in the
folder is taken.
"""

from __future__ import annotations

from calm.data.obtain.ways import ByHand
from calm.data.reading.base import Card
from calm.data.reading.folder import FolderSource


class Pexels(FolderSource):
    """Unlabelled photographs."""

    card = Card(
        title="Pexels",
        task="none: photographs for self-supervision",
        size="as found; the paper does not say how many it took",
        licence="Pexels licence: free to use and modify, not to be sold unaltered or as a competing collection",
        terms="https://www.pexels.com/license/ and Pexels' terms of service, which restrict collecting by machine",
        citation="none",
        home="https://www.pexels.com",
    )
    obtain = (
        ByHand(
            "Collect photographs with a key of your own through Pexels' official API (https://www.pexels.com/api/), "
            "or take a published collection, and put them loose, in .tar or in .zip into one folder."
        ),
    )


SOURCE = Pexels
