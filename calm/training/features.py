"""Encoder features of photographs, edited or as they are: the encoder is frozen, so nothing here builds a graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from PIL import Image

from calm.attributes.edits import Edit, apply_edits, spoil
from calm.data.store.images import ImageStore
from calm.layout import Layout
from calm.model.build import Assembly
from calm.model.mfam import LevelTokens
from calm.model.processing import Preprocessing, byte_pixels, normalise
from calm.model.settings import Runtime

Key = tuple[str, str] | tuple[str, str, str]  # dataset, item_id, and how it is spoilt if it is

ENCODED_AT_ONCE = 32
DECODED_KEPT = 512  # photographs kept decoded, a byte a channel: about 90 MB at 288 pixels


class Photographs:
    """Photographs of several datasets, as they are or spoilt."""

    def __init__(self, layout: Layout, datasets: Iterable[str]) -> None:
        self.stores = {dataset: ImageStore(layout.prepared(dataset)) for dataset in sorted(set(datasets))}
        self._decoded = lru_cache(maxsize=DECODED_KEPT)(lambda key: byte_pixels(self[key]))

    def __getitem__(self, key: Key) -> Image.Image:
        dataset, item_id, *how = key
        photograph = self.stores[dataset][item_id]
        return spoil(photograph, how[0], dataset, item_id) if how else photograph

    def unit_pixels(self, key: Key) -> torch.Tensor:
        """A photograph as (3, H, W) float in 0..1."""
        return self._decoded(key).float() / 255


def render(
    pixels: Sequence[torch.Tensor], edits: Sequence[Sequence[Edit]], preprocessing: Preprocessing
) -> torch.Tensor:
    """Edit photographs at the size they are stored in, then bring them to what the encoder expects.

    Args:
        pixels: photographs (3, H, W) in 0..1, of any sizes.
        edits: those of each photograph.

    Returns:
        (B, 3, S, S), normalised. Photographs of one size are edited together.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(pixels):
        groups.setdefault(tuple(image.shape[-2:]), []).append(i)
    rendered = torch.empty(len(pixels), 3, preprocessing.size, preprocessing.size)
    for rows in groups.values():
        edited = apply_edits(torch.stack([pixels[i] for i in rows]), [edits[i] for i in rows])
        rendered[rows] = normalise(edited, preprocessing)
    return rendered


class Features:
    """Level tokens of photographs as they are, encoded once and kept in memory if `keep`."""

    def __init__(self, assembly: Assembly, photographs: Photographs, *, keep: bool) -> None:
        self.assembly = assembly
        self.photographs = photographs
        self.keep = keep
        self._kept: dict[Key, LevelTokens] = {}

    @staticmethod
    def of(assembly: Assembly, datasets: Iterable[str], runtime: Runtime, layout: Layout) -> Features:
        """As `runtime` says."""
        return Features(assembly, Photographs(layout, datasets), keep=runtime.keep_features)

    def __call__(self, keys: Sequence[Key]) -> LevelTokens:
        """Features of `keys`, in their order."""
        if not self.keep:
            return self._encode(keys)
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        for start in range(0, len(missing), ENCODED_AT_ONCE):
            chunk = missing[start : start + ENCODED_AT_ONCE]
            encoded = self._encode(chunk)
            self._kept.update((key, encoded.rows(slice(i, i + 1))) for i, key in enumerate(chunk))
        return LevelTokens.concatenate([self._kept[key] for key in keys])

    def read(self, keys: Sequence[Key]) -> torch.Tensor | None:
        """Photographs as the encoder expects them, (B, 3, S, S); None where features are kept instead."""
        return None if self.keep else self._pixels(keys)

    def prepare(self, keys: Iterable[Key]) -> None:
        """Encode all `keys` now, in an order of their own, so that a resumed run keeps the very same bits."""
        if self.keep:
            self(sorted(set(keys)))

    def _encode(self, keys: Sequence[Key]) -> LevelTokens:
        return self.assembly.encode(self._pixels(keys))

    def _pixels(self, keys: Sequence[Key]) -> torch.Tensor:
        images = [self.photographs[key] for key in keys]
        pixels: torch.Tensor = self.assembly.processor.image_processor(images, return_tensors="pt")["pixel_values"]
        return pixels
