"""Image operations behind the edits, each on (B, 3, H, W) in 0..1 with one strength and one seed per image.

What an image becomes must not depend on its batch, nor on the number of threads (`tests/attributes/test_edits.py`). So
pixels are not raised to powers, which differ by a bit between a vector lane and a loop's tail, and means over a picture
are taken of integers, since a sum of floats changes with the number of threads. Convolutions run image by image.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from PIL import Image
from torch import Tensor

from calm.attributes.pixels import (
    DESIGN_SIDE,
    Affine,
    channels,
    column,
    coordinates,
    luma,
    mean_luma,
    mix,
    scale,
    smoothstep,
    warp,
)
from calm.seeds import stream

# Focus, sharpening and falling light: what a lens does.


def blur(images: Tensor, strength: Sequence[float], _seeds: Sequence[int] = ()) -> Tensor:
    """Gaussian blur with one sigma per image, in pixels at the design size; edges are continued.

    One image at a time: kernels of one call share their size, and cut off elsewhere they would have other weights.
    """
    widths = [sigma * scale(images) for sigma in strength]
    sides = [2 * math.ceil(3 * width) + 1 for width in widths]
    return torch.cat(
        [
            gaussian_blur2d(image, (side, side), (width, width), border_type="replicate")
            for image, side, width in zip(images.split(1), sides, widths, strict=True)
        ]
    )


def shake(images: Tensor, strength: Sequence[float], seeds: Sequence[int]) -> Tensor:
    """What a hand-held camera sees that moves by about `strength` pixels at the design size during the exposure."""
    told = zip(images.split(1), strength, seeds, strict=True)  # one image at a time, as in `blur`
    return torch.cat([_shaken(image, length, stream(seed, "shake")) for image, length, seed in told])


def _shaken(image: Tensor, length: float, rng: np.random.Generator) -> Tensor:
    """The mean of the image along a bent path, on which the camera also rolls and comes nearer or goes away.

    Of squares, which are nearly proportional to light: lamps leave streaks.
    """
    height, width = image.shape[-2:]
    reach, side = 2 * length / DESIGN_SIDE, min(height, width)  # of coordinates from -1 to 1 over the shorter side
    direction, bend = rng.uniform(0, 2 * math.pi), reach * rng.uniform(-0.5, 0.5)
    roll, nearer = reach * rng.uniform(-0.7, 0.7), reach * rng.uniform(-0.4, 0.4)
    light, moments = torch.zeros_like(image), math.ceil(length * scale(image)) + 1
    for moment in np.linspace(-0.5, 0.5, moments).tolist():
        along, across = reach * moment, bend * (4 * moment * moment - 0.5)
        x = along * math.cos(direction) - across * math.sin(direction)
        y = along * math.sin(direction) + across * math.cos(direction)
        a, b, _, d, e, _ = _rolled(roll * moment, width / height, 1 + nearer * moment)
        seen = warp(image, [(a, b, x * side / width, d, e, y * side / height)])
        light = light + seen * seen
    return (light / moments).sqrt()


def sharpen(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Unsharp mask of `strength` times the detail below about one pixel, with its halos."""
    detail = luma(images) - blur(luma(images), [1.2] * len(images))
    return (images + detail * column(strength, images)).clamp(0, 1)


def blur_background(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Blur that grows from the middle outwards: the subject stays sharp."""
    return mix(images, blur(images, strength), _outwards(images, 0.2, 0.6))


def blur_subject(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Blur in the middle, sharp surroundings: the focus missed the subject."""
    return mix(blur(images, strength), images, _outwards(images, 0.2, 0.6))


def _outwards(images: Tensor, low: float, high: float) -> Tensor:
    """0 where the squared distance from the middle is below `low`, 1 above `high`."""
    x, y = coordinates(images)
    return smoothstep(x * x + y * y, low, high)


def shade_corners(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Light falls off by a share of `strength` towards the corners."""
    return images * (1 - column(strength, images) * _outwards(images, 0.25, 1.6))


def haze_corners(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """White light covers the corners by a share of `strength`."""
    return mix(images, torch.ones_like(images), column(strength, images) * _outwards(images, 0.25, 1.6))


# Tone and colour: what happens to a pixel whatever its neighbours are, and looks built upon that.


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
    images: Tensor, strength: Sequence[float], _seeds: Sequence[int], *, towards: tuple[float, float, float]
) -> Tensor:
    """Multiply the channels by 1 + strength x `towards`."""
    return (images * (1 + column(strength, images) * channels(towards, images))).clamp(0, 1)


def duotone(
    images: Tensor, strength: Sequence[float], _seeds: Sequence[int], *, middle: tuple[float, float, float]
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
    red, green = (mix(images, steep, amount)[:, :1], mix(images, steep, 0.8 * amount)[:, 1:2])
    blue = mix(images, shallow, amount)[:, 2:]
    return torch.cat((red, green, blue), dim=1).clamp(0, 1)


def raise_key(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Shadows up to pale greys and a glow around the lights: airy, with whites that are not clipped further."""
    amount = column(strength, images)
    dark = 1 - images
    lifted = mix(images, 1 - dark * dark * dark, amount)
    lifted = lifted + (1 - lifted) * 0.3 * amount
    glow = blur(lifted, [5.0] * len(images))
    return (1 - (1 - lifted) * (1 - 0.4 * amount * glow)).clamp(0, 1)


def lower_key(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Middle tones sink into black while the lights stay: a few lit shapes in the dark."""
    squared = images * images
    return mix(images, squared * squared, column(strength, images)).clamp(0, 1)


def tone_map(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Even out the light over wide areas and exaggerate what is left: halos, gritty detail, loud colours."""
    amount = column(strength, images)
    grey = luma(images)
    base = blur(grey, [7.0] * len(images))
    even = 0.5 + (base - 0.5) * (1 - 0.6 * amount)
    mapped = images + (even - base) + (grey - base) * 1.8 * amount
    grey = luma(mapped)
    return (grey + (mapped - grey) * (1 + 0.6 * amount)).clamp(0, 1)


def posterise(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Keep about `strength` + 1 levels per channel."""
    steps = column(strength, images)
    return ((images * steps).round() / steps).clamp(0, 1)


# Where things are in the frame: turning, stretching, cropping, adding.


def rotate(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Turn clockwise by `strength` degrees, enlarged until no corner is empty."""
    height, width = images.shape[-2:]
    return warp(images, [_turned(math.radians(degrees), width / height) for degrees in strength])


def _turned(angle: float, aspect: float) -> Affine:
    """Source coordinates of a turned picture, for a width of `aspect` times its height."""
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    return _rolled(angle, aspect, max(cos + sin / aspect, cos + sin * aspect))


def _rolled(angle: float, aspect: float, zoom: float) -> Affine:
    """The same, enlarged by `zoom`."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos / zoom, sin / zoom / aspect, 0.0, -sin / zoom * aspect, cos / zoom, 0.0


def turn_over(images: Tensor, _strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Turn by 180 degrees."""
    return images.flip(2, 3)


def widen(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Stretch to `strength` times the width; both sides are cropped."""
    return warp(images, [(1 / factor, 0.0, 0.0, 0.0, 1.0, 0.0) for factor in strength])


def heighten(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Stretch to `strength` times the height; top and bottom are cropped."""
    return warp(images, [(1.0, 0.0, 0.0, 0.0, 1 / factor, 0.0) for factor in strength])


def crop(images: Tensor, strength: Sequence[float], seeds: Sequence[int]) -> Tensor:
    """Enlarge `strength` times around a seeded point, not always the middle."""
    return warp(images, [_cropped(1 / factor, seed) for factor, seed in zip(strength, seeds, strict=True)])


def _cropped(share: float, seed: int) -> Affine:
    x, y = stream(seed, "crop").uniform(-0.6, 0.6, 2) * (1 - share)
    return share, 0.0, float(x), 0.0, share, float(y)


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
        top, left = (int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1)))
        inside = image[:, top : top + height, left : left + width].flip(2)
        inside = inside[:, rim : height - rim, rim : width - rim]
        patch = F.pad(inside, (rim, rim, rim, rim), value=float(rng.integers(2)))
        pieces.append((patch, int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))))
    return pieces


# What sensor, print and file leave behind.


def add_noise(images: Tensor, strength: Sequence[float], seeds: Sequence[int]) -> Tensor:
    """Add seeded Gaussian noise of standard deviation `strength` to every channel."""
    noise = [
        torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=images.dtype)
        for seed in seeds
    ]
    return (images + torch.stack(noise).to(images.device) * column(strength, images)).clamp(0, 1)


def jpeg(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Through a JPEG file of quality `strength` (libjpeg's scale, rounded)."""
    return torch.stack([_through_jpeg(image, round(quality)) for image, quality in zip(images, strength, strict=True)])


def _through_jpeg(image: Tensor, quality: int) -> Tensor:
    pixels = (image.detach().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
    decoded = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    return (decoded.to(image.dtype) / 255).to(image.device)


def paint(images: Tensor, strength: Sequence[float], _seeds: Sequence[int]) -> Tensor:
    """Kuwahara filter: flat strokes of about `strength` pixels (at the design size) between crisp edges."""
    radii = [max(1, round(value * scale(images))) for value in strength]
    return torch.cat([_kuwahara(image.unsqueeze(0), radius) for image, radius in zip(images, radii, strict=True)])


def _kuwahara(image: Tensor, radius: int) -> Tensor:
    """Each pixel takes the mean of that one of its four neighbouring squares which varies least."""
    stacked = torch.cat((image, grey := luma(image), grey * grey), dim=1)
    means = F.avg_pool2d(F.pad(stacked, (radius,) * 4, mode="replicate"), radius + 1, stride=1)
    height, width = image.shape[-2:]
    corners = [means[:, :, top : top + height, left : left + width] for top in (0, radius) for left in (0, radius)]
    variances = [corner[:, 4:5] - corner[:, 3:4] * corner[:, 3:4] for corner in corners]
    best, least = corners[0][:, :3], variances[0]
    for corner, variance in zip(corners[1:], variances[1:], strict=True):
        best = torch.where(variance < least, corner[:, :3], best)
        least = torch.minimum(variance, least)
    return best.clamp(0, 1)
