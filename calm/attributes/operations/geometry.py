"""Where things are in the frame: turning, stretching, cropping, adding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from calm.attributes.operations.common import column, coordinates, scale
from calm.seeds import stream

Affine = tuple[float, float, float, float, float, float]


def rotate(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Turn clockwise by `strength` degrees, enlarged until no corner is empty."""
    height, width = images.shape[-2:]
    return _warp(images, [_turned(math.radians(degrees), width / height) for degrees in strength])


def _turned(angle: float, aspect: float) -> Affine:
    """Source coordinates of a turned picture, for a width of `aspect` times its height."""
    cos, sin = math.cos(angle), math.sin(angle)
    zoom = max(abs(cos) + abs(sin) / aspect, abs(cos) + abs(sin) * aspect)
    return cos / zoom, sin / zoom / aspect, 0.0, -sin / zoom * aspect, cos / zoom, 0.0


def turn_over(images: Tensor, _strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Turn by 180 degrees."""
    return images.flip(2, 3)


def widen(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Stretch to `strength` times the width; both sides are cropped."""
    return _warp(images, [(1 / factor, 0.0, 0.0, 0.0, 1.0, 0.0) for factor in strength])


def heighten(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Stretch to `strength` times the height; top and bottom are cropped."""
    return _warp(images, [(1.0, 0.0, 0.0, 0.0, 1 / factor, 0.0) for factor in strength])


def crop(images: Tensor, strength: Sequence[float], seeds: Sequence[int]) -> Tensor:
    """Enlarge `strength` times around a seeded point, not always the middle."""
    return _warp(
        images,
        [_cropped(1 / factor, seed) for factor, seed in zip(strength, seeds, strict=True)],
    )


def _cropped(share: float, seed: int) -> Affine:
    x, y = stream(seed, "crop").uniform(-0.6, 0.6, 2) * (1 - share)
    return share, 0.0, float(x), 0.0, share, float(y)


def _warp(images: Tensor, sources: Sequence[Affine]) -> Tensor:
    """Read each output pixel (x, y) at (a x + b y + c, d x + e y + f), bilinear; coordinates in -1..1."""
    x, y = (axis.squeeze(1) for axis in coordinates(images))
    a, b, c, d, e, f = (column(values, images).squeeze(1) for values in zip(*sources, strict=True))
    grid = torch.stack((a * x + b * y + c, d * x + e * y + f), dim=-1)
    warped = F.grid_sample(images.contiguous(), grid, padding_mode="border", align_corners=False)
    return warped.clamp(0, 1)


def letterbox(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Cover a share of `strength` of the height with black, above and below."""
    _, y = coordinates(images)
    return images * (y.abs() <= 1 - 2 * column(strength, images)).to(images.dtype)


def scatter_patches(images: Tensor, strength: Sequence[float], seeds: Sequence[int]) -> Tensor:
    """Paste about `strength` framed pieces of the photograph itself all over it."""
    cluttered = images.clone()
    for index, (count, seed) in enumerate(zip(strength, seeds, strict=True)):
        for patch, top, left in _patches(images[index], round(count), stream(seed, "clutter")):
            height, width = patch.shape[-2:]
            cluttered[index, :, top : top + height, left : left + width] = patch
    return cluttered


def _patches(image: Tensor, count: int, rng: np.random.Generator) -> list[tuple[Tensor, int, int]]:
    """Pieces of the image, mirrored, with a thin rim of light or dark, and where each goes."""
    rows, columns = image.shape[-2:]
    rim = max(1, round(scale(image)))
    pieces = []
    for _ in range(count):
        height, width = (int(side * rng.uniform(0.12, 0.26)) for side in (rows, columns))
        top, left = (
            int(rng.integers(rows - height + 1)),
            int(rng.integers(columns - width + 1)),
        )
        inside = image[:, top : top + height, left : left + width].flip(2)
        inside = inside[:, rim : height - rim, rim : width - rim]
        patch = F.pad(inside, (rim, rim, rim, rim), value=float(rng.integers(2)))
        pieces.append(
            (
                patch,
                int(rng.integers(rows - height + 1)),
                int(rng.integers(columns - width + 1)),
            )
        )
    return pieces
