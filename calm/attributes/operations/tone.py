"""Tone and colour: what happens to a pixel whatever its neighbours are, and looks built upon that."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from calm.attributes.operations.common import channels, column, luma, mean_luma, mix
from calm.attributes.operations.optics import gaussian


def expose(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Multiply the light by `strength`; what exceeds white is lost."""
    return (images * column(strength, images)).clamp(0, 1)


def stretch(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Multiply distances from the photograph's mean luminance by `strength`."""
    middle = mean_luma(images)
    return (middle + (images - middle) * column(strength, images)).clamp(0, 1)


def saturate(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Multiply each pixel's distance from its own grey by `strength`."""
    grey = luma(images)
    return (grey + (images - grey) * column(strength, images)).clamp(0, 1)


def tint(
    images: Tensor,
    strength: Sequence[float],
    _seeds: Sequence[int],
    *,
    towards: tuple[float, float, float],
) -> Tensor:
    """Multiply the channels by 1 + strength x `towards`."""
    return (images * (1 + column(strength, images) * channels(towards, images))).clamp(0, 1)


def duotone(
    images: Tensor,
    strength: Sequence[float],
    _seeds: Sequence[int],
    *,
    middle: tuple[float, float, float],
) -> Tensor:
    """Replace colour by greys that pass through `middle` (RGB) at mid luminance, by a share of `strength`."""
    grey = luma(images)
    arch = 4 * grey * (1 - grey)
    toned = grey + arch * (channels(middle, images) - 0.5)
    return mix(images, toned, column(strength, images)).clamp(0, 1)


def fade(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Lift blacks to lilac, lower whites to cream and wash colours out, as an old print does."""
    amount = column(strength, images)
    black = channels((0.46, 0.38, 0.44), images) * amount
    white = 1 - channels((0.06, 0.14, 0.34), images) * amount
    washed = mix(images, luma(images).expand_as(images), 0.5 * amount)
    return (black + washed * (white - black)).clamp(0, 1)


def cross_process(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Steep red and green curves, a shallow blue one: yellow lights, blue shadows, as slide film in the wrong bath."""
    amount = column(strength, images)
    steep = images * images * (3 - 2 * images)
    shallow = 0.32 + 0.36 * images
    red, green = (
        mix(images, steep, amount)[:, :1],
        mix(images, steep, 0.8 * amount)[:, 1:2],
    )
    blue = mix(images, shallow, amount)[:, 2:]
    return torch.cat((red, green, blue), dim=1).clamp(0, 1)


def raise_key(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Shadows up to pale greys and a glow around the lights: airy, with whites that are not clipped further."""
    amount = column(strength, images)
    dark = 1 - images
    lifted = mix(images, 1 - dark * dark * dark, amount)
    lifted = lifted + (1 - lifted) * 0.3 * amount
    glow = gaussian(lifted, [5.0] * len(images))
    return (1 - (1 - lifted) * (1 - 0.4 * amount * glow)).clamp(0, 1)


def lower_key(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Middle tones sink into black while the lights stay: a few lit shapes in the dark."""
    squared = images * images
    return mix(images, squared * squared, column(strength, images)).clamp(0, 1)


def tone_map(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Even out the light over wide areas and exaggerate what is left: halos, gritty detail, loud colours."""
    amount = column(strength, images)
    grey = luma(images)
    base = gaussian(grey, [7.0] * len(images))
    even = 0.5 + (base - 0.5) * (1 - 0.6 * amount)
    mapped = images + (even - base) + (grey - base) * 1.8 * amount
    grey = luma(mapped)
    return (grey + (mapped - grey) * (1 + 0.6 * amount)).clamp(0, 1)


def posterise(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Keep about `strength` + 1 levels per channel."""
    steps = column(strength, images)
    return ((images * steps).round() / steps).clamp(0, 1)
