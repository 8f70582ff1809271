"""Focus, sharpening and falling light: what a lens does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from kornia.filters import gaussian_blur2d
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

    One image at a time: kernels of one call share their size, and cut off elsewhere they would have other weights.
    """
    widths = [sigma * scale(images) for sigma in sigmas]
    sides = [2 * math.ceil(3 * width) + 1 for width in widths]
    return torch.cat(
        [
            gaussian_blur2d(image, (side, side), (width, width), border_type="replicate")
            for image, side, width in zip(images.split(1), sides, widths, strict=True)
        ]
    )


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
