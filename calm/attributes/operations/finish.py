"""What sensor, print and file leave behind."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from calm.attributes.operations.common import column, luma, scale


def add_noise(images: Tensor, strength: Sequence[float], seeds: Sequence[int]) -> Tensor:
    """Add seeded Gaussian noise of standard deviation `strength` to every channel."""
    noise = [
        torch.randn(
            images.shape[1:],
            generator=torch.Generator().manual_seed(seed),
            dtype=images.dtype,
        )
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
    grey = luma(image)
    stacked = torch.cat((image, grey, grey * grey), dim=1)
    padded = F.pad(stacked, (radius, radius, radius, radius), mode="replicate")
    means = F.avg_pool2d(padded, radius + 1, stride=1)
    height, width = image.shape[-2:]
    best, least = None, None
    for top in (0, radius):
        for left in (0, radius):
            corner = means[:, :, top : top + height, left : left + width]
            variance = corner[:, 4:5] - corner[:, 3:4] * corner[:, 3:4]
            if best is None or least is None:
                best, least = corner[:, :3], variance
                continue
            best = torch.where(variance < least, corner[:, :3], best)
            least = torch.minimum(variance, least)
    assert best is not None
    return best.clamp(0, 1)
