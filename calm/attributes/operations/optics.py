"""Focus, sharpening and falling light: what a lens does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from calm.attributes.operations.common import (
    column,
    coordinates,
    luma,
    mix,
    scale,
    smoothstep,
)


def blur(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Gaussian blur; `strength` is sigma in pixels at the design size."""
    return gaussian(images, strength)


def gaussian(images: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Gaussian blur with one sigma per image, in pixels at the design size; edges are continued.

    Not kornia's, which runs all images as groups of one convolution: there an image's last bits depend on its batch.
    Taps beyond three sigma have weight 0, so that a wider neighbour in the batch adds exact zeros.
    """
    taps = [_taps(sigma * scale(images)) for sigma in sigmas]
    radius = max(len(row) for row in taps) - 1
    weights = [column([row[k] if k < len(row) else 0.0 for row in taps], images) for k in range(radius + 1)]
    padded = F.pad(images, (radius, radius, radius, radius), mode="replicate")
    return _weighted(_weighted(padded, weights, dim=3), weights, dim=2)


def _taps(sigma: float) -> list[float]:
    """One half of a normalised Gaussian kernel, centre first."""
    half = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(math.ceil(3 * sigma) + 1)]
    total = 2 * sum(half) - half[0]
    return [tap / total for tap in half]


def _weighted(padded: Tensor, weights: list[Tensor], dim: int) -> Tensor:
    """Symmetric convolution along one dimension; the result is shorter by the padding."""
    radius = len(weights) - 1
    size = padded.shape[dim] - 2 * radius
    total = padded.narrow(dim, radius, size) * weights[0]
    for k in range(1, radius + 1):
        pair = padded.narrow(dim, radius - k, size) + padded.narrow(dim, radius + k, size)
        total += pair * weights[k]
    return total


def sharpen(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Unsharp mask of `strength` times the detail below about one pixel, with its halos."""
    detail = luma(images) - gaussian(luma(images), [1.2] * len(images))
    return (images + detail * column(strength, images)).clamp(0, 1)


def blur_background(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Blur that grows from the middle outwards: the subject stays sharp."""
    return mix(images, gaussian(images, strength), _outside(images))


def blur_subject(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Blur in the middle, sharp surroundings: the focus missed the subject."""
    return mix(gaussian(images, strength), images, _outside(images))


def _outside(images: Tensor) -> Tensor:
    """0 in an ellipse in the middle, 1 towards the frame."""
    x, y = coordinates(images)
    return smoothstep(x * x + y * y, 0.2, 0.6)


def shade_corners(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Light falls off by a share of `strength` towards the corners."""
    return images * (1 - column(strength, images) * _corners(images))


def haze_corners(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """White light covers the corners by a share of `strength`."""
    return mix(images, torch.ones_like(images), column(strength, images) * _corners(images))


def _corners(images: Tensor) -> Tensor:
    """0 in the middle, 1 in the corners."""
    x, y = coordinates(images)
    return smoothstep(x * x + y * y, 0.25, 1.6)
