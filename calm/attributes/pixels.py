"""What operations on images (B, 3, H, W) in 0..1 are built from: numbers by image, luminance, places, warps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
DESIGN_SIDE = 224.0  # pixels of the shorter side at which lengths are given
Affine = tuple[float, float, float, float, float, float]


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """One number per image as (B, 1, 1, 1), to be broadcast over `like`."""
    return torch.tensor(list(values), dtype=like.dtype, device=like.device).view(-1, 1, 1, 1)


def channels(values: Sequence[float], like: Tensor) -> Tensor:
    """One number per channel as (1, 3, 1, 1)."""
    return torch.tensor(list(values), dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


def luma(images: Tensor) -> Tensor:
    """Luminance, (B, 1, H, W). Written out since a matrix product may sum in another order."""
    red, green, blue = images.unbind(1)
    return (red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]).unsqueeze(1)


def mean_luma(images: Tensor) -> Tensor:
    """Mean luminance, (B, 1, 1, 1), of the image at 8 bits: integers add up exactly in any order."""
    levels = (luma(images) * 255).round().to(torch.int64)
    pixels = levels.shape[-1] * levels.shape[-2]
    return (levels.sum(dim=(1, 2, 3), keepdim=True).to(torch.float64) / (255 * pixels)).to(images.dtype)


def mix(start: Tensor, end: Tensor, amount: Tensor | float) -> Tensor:
    """`start` at amount 0, `end` at 1. Not `torch.lerp`, which may fuse its multiply and add."""
    return start + (end - start) * amount


def scale(images: Tensor) -> float:
    """Factor from pixels at the design size to pixels of these images."""
    return min(images.shape[-2:]) / DESIGN_SIDE


def coordinates(images: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel centres as x (1, 1, 1, W) and y (1, 1, H, 1), from -1 to 1 over the whole picture."""
    height, width = images.shape[-2:]
    x = (torch.arange(width, dtype=torch.float64, device=images.device) * 2 + 1) / width - 1
    y = (torch.arange(height, dtype=torch.float64, device=images.device) * 2 + 1) / height - 1
    return x.to(images.dtype).view(1, 1, 1, -1), y.to(images.dtype).view(1, 1, -1, 1)


def smoothstep(values: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between."""
    t = ((values - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def warp(images: Tensor, sources: Sequence[Affine]) -> Tensor:
    """Read each output pixel (x, y) at (a x + b y + c, d x + e y + f), bilinear; coordinates in -1..1."""
    x, y = (axis.squeeze(1) for axis in coordinates(images))
    a, b, c, d, e, f = (column(values, images).squeeze(1) for values in zip(*sources, strict=True))
    grid = torch.stack((a * x + b * y + c, d * x + e * y + f), dim=-1)
    warped = F.grid_sample(images.contiguous(), grid, padding_mode="border", align_corners=False)
    return warped.clamp(0, 1)
