"""Quantities of photographs that the edits claim to move, (B, 3, H, W) in 0..1 -> (B,).

The catalogue names one for each edit. They are written apart from the operations (none is imported here), so that a
test of an edit against its measure can fail.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def grey(images: Tensor) -> Tensor:
    """Luminance (ITU-R BT.601), (B, H, W)."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=images.dtype)
    return torch.einsum("bchw,c->bhw", images, weights)


def luminance(images: Tensor) -> Tensor:
    """Mean luminance."""
    return grey(images).mean(dim=(1, 2))


def luminance_spread(images: Tensor) -> Tensor:
    """Standard deviation of the luminance."""
    return grey(images).flatten(1).std(dim=1)


def _quantile(images: Tensor, share: float) -> Tensor:
    return grey(images).flatten(1).quantile(share, dim=1)


def black_point(images: Tensor) -> Tensor:
    """Luminance below which the darkest twentieth lies."""
    return _quantile(images, 0.05)


def shadow_level(images: Tensor) -> Tensor:
    """Luminance below which the darkest quarter lies."""
    return _quantile(images, 0.25)


def deep_shadows(images: Tensor) -> Tensor:
    """Share of pixels with a luminance below 0.15."""
    return (grey(images) < 0.15).to(images.dtype).mean(dim=(1, 2))


def chroma(images: Tensor) -> Tensor:
    """Mean distance between a pixel's highest and lowest channel."""
    return (images.amax(dim=1) - images.amin(dim=1)).mean(dim=(1, 2))


def strongest_colour(images: Tensor) -> Tensor:
    """Chroma that only one pixel in a hundred exceeds."""
    return (images.amax(dim=1) - images.amin(dim=1)).flatten(1).quantile(0.99, dim=1)


def greenness(images: Tensor) -> Tensor:
    """Mean green minus the mean of red and blue: magenta is negative."""
    red, green, blue = images.mean(dim=(2, 3)).unbind(1)
    return green - (red + blue) / 2


def warmth(images: Tensor) -> Tensor:
    """Mean red minus mean blue."""
    red, _, blue = images.mean(dim=(2, 3)).unbind(1)
    return red - blue


def single_hue(images: Tensor) -> Tensor:
    """1 when all colour lies in one hue, 0 when hues cancel: length of the mean opponent vector over mean length."""
    red, green, blue = images.unbind(1)
    opponents = torch.stack((red - green, (red + green) / 2 - blue), dim=1).flatten(2)
    overall: Tensor = torch.linalg.vector_norm(opponents.mean(dim=2), dim=1)
    each: Tensor = torch.linalg.vector_norm(opponents, dim=1).mean(dim=1)
    return overall / each.clamp_min(1e-6)


def split_toning(images: Tensor) -> Tensor:
    """Yellowness (red and green over blue) of the lighter half minus that of the darker half."""
    yellow = ((images[:, 0] + images[:, 1]) / 2 - images[:, 2]).flatten(1)
    brightness = grey(images).flatten(1)
    light = (brightness > brightness.median(dim=1, keepdim=True).values).to(images.dtype)
    lighter = (yellow * light).sum(dim=1) / light.sum(dim=1).clamp_min(1)
    return lighter - (yellow * (1 - light)).sum(dim=1) / (1 - light).sum(dim=1).clamp_min(1)


def laplacian(images: Tensor) -> Tensor:
    """Magnitude of the second derivative of luminance, (B, H - 2, W - 2)."""
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]], dtype=images.dtype)
    return F.conv2d(grey(images).unsqueeze(1), kernel.view(1, 1, 3, 3)).abs().squeeze(1)


def fine_detail(images: Tensor) -> Tensor:
    """Mean magnitude of the Laplacian over the spread of luminance."""
    return laplacian(images).mean(dim=(1, 2)) / luminance_spread(images).clamp_min(1e-6)


def noise_level(images: Tensor) -> Tensor:
    """Immerkaer's fast noise estimate (CVIU 1996): a mask that lines and ramps do not answer."""
    kernel = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]], dtype=images.dtype)
    response = F.conv2d(grey(images).unsqueeze(1), kernel.view(1, 1, 3, 3)).abs()
    return response.flatten(1).median(dim=1).values


def blockiness(images: Tensor) -> Tensor:
    """Mean step across the borders of 8x8 blocks over the mean step elsewhere."""
    luminance_ = grey(images)
    ratios = []
    for dim in (1, 2):
        steps = luminance_.diff(dim=dim).abs().mean(dim=3 - dim)
        border = torch.arange(steps.shape[1]) % 8 == 7
        ratios.append(steps[:, border].mean(dim=1) / steps[:, ~border].mean(dim=1).clamp_min(1e-6))
    return (ratios[0] + ratios[1]) / 2


def gradients(images: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical Scharr derivatives of luminance, (B, H - 2, W - 2)."""
    kernel = torch.tensor([[-3.0, 0.0, 3.0], [-10.0, 0.0, 10.0], [-3.0, 0.0, 3.0]], dtype=images.dtype) / 32
    both = F.conv2d(grey(images).unsqueeze(1), torch.stack((kernel, kernel.T)).unsqueeze(1))
    return both[:, 0], both[:, 1]


def lean(images: Tensor) -> Tensor:
    """How far the dominant straight edges lean clockwise from upright or level, in degrees from -22.5 to 22.5.

    The orientation of every strong edge is folded into a quarter turn, since verticals and horizontals should agree.
    """
    horizontal, vertical = gradients(images)
    magnitude = (horizontal**2 + vertical**2).sqrt()
    strong = magnitude > magnitude.flatten(1).quantile(0.9, dim=1).view(-1, 1, 1)
    folded = torch.atan2(vertical, horizontal) * 4
    weight = magnitude * strong
    mean = torch.atan2((weight * folded.sin()).sum(dim=(1, 2)), (weight * folded.cos()).sum(dim=(1, 2)))
    return torch.rad2deg(mean) / 4


def edge_density(images: Tensor) -> Tensor:
    """Share of pixels with a luminance step above 0.04."""
    horizontal, vertical = gradients(images)
    return ((horizontal**2 + vertical**2).sqrt() > 0.04).to(images.dtype).mean(dim=(1, 2))


def upright_edges(images: Tensor) -> Tensor:
    """Log ratio of mean horizontal to mean vertical derivative: stretching in width lowers it, in height raises it."""
    horizontal, vertical = gradients(images)
    ratio = horizontal.abs().mean(dim=(1, 2)) / vertical.abs().mean(dim=(1, 2)).clamp_min(1e-9)
    return ratio.clamp_min(1e-9).log()


def black_bars(images: Tensor) -> Tensor:
    """Share of rows that are black from side to side."""
    return (grey(images).amax(dim=2) < 0.02).to(images.dtype).mean(dim=1)


def feature_size(images: Tensor) -> Tensor:
    """Spread of luminance over its mean step to the next pixel: the width of a typical shape, in pixels."""
    values = grey(images)
    step = (values.diff(dim=1).abs().mean(dim=(1, 2)) + values.diff(dim=2).abs().mean(dim=(1, 2))) / 2
    return luminance_spread(images) / step.clamp_min(1e-6)


def _areas(images: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (H, W) of the middle (radius 0.35 of half a side) and of the four corners (an eighth of each side)."""
    height, width = images.shape[-2:]
    y, x = (
        torch.linspace(-1, 1, height).view(-1, 1),
        torch.linspace(-1, 1, width).view(1, -1),
    )
    corners = (y.abs() > 0.75) & (x.abs() > 0.75)
    return ((x**2 + y**2).sqrt() < 0.35).to(images.dtype), corners.to(images.dtype)


def corner_light(images: Tensor) -> Tensor:
    """Log ratio of the corners' mean luminance to the middle's."""
    middle, corners = _areas(images)
    values = grey(images)
    inside = (values * middle).sum(dim=(1, 2)) / middle.sum()
    outside = (values * corners).sum(dim=(1, 2)) / corners.sum()
    return (outside.clamp_min(1e-3) / inside.clamp_min(1e-3)).log()


def middle_focus(images: Tensor) -> Tensor:
    """Log ratio of fine detail in the middle to fine detail in the corners."""
    middle, corners = (mask[1:-1, 1:-1] for mask in _areas(images))
    detail = laplacian(images)
    inside = (detail * middle).sum(dim=(1, 2)) / middle.sum()
    outside = (detail * corners).sum(dim=(1, 2)) / corners.sum()
    return (inside.clamp_min(1e-6) / outside.clamp_min(1e-6)).log()


def light_from_above(images: Tensor) -> Tensor:
    """Mean luminance of the upper half minus the lower half; most scenes are lit from above."""
    upper, lower = grey(images).tensor_split(2, dim=1)
    return upper.mean(dim=(1, 2)) - lower.mean(dim=(1, 2))


def light_from_right(images: Tensor) -> Tensor:
    """Mean luminance of the right half minus the left half."""
    left, right = grey(images).tensor_split(2, dim=2)
    return right.mean(dim=(1, 2)) - left.mean(dim=(1, 2))


def local_contrast(images: Tensor) -> Tensor:
    """Mean standard deviation within windows of a sixteenth of the shorter side, over the overall one."""
    side = max(4, min(images.shape[-2:]) // 16)
    values = grey(images).unsqueeze(1)
    variance = F.avg_pool2d(values**2, side) - F.avg_pool2d(values, side) ** 2
    return variance.clamp_min(0).sqrt().mean(dim=(1, 2, 3)) / luminance_spread(images).clamp_min(1e-6)


def texture(images: Tensor) -> Tensor:
    """Mean second derivative of luminance over that of its strongest edges: low for smooth surfaces, crisp edges."""
    detail = laplacian(images).flatten(1)
    return detail.mean(dim=1) / detail.quantile(0.99, dim=1).clamp_min(1e-6)


def tonal_variety(images: Tensor) -> Tensor:
    """Entropy of the luminance histogram in 64 bins, in bits."""
    bins = (grey(images) * 64).long().clamp(0, 63).flatten(1)
    counts = torch.zeros(len(images), 64, dtype=images.dtype).scatter_add_(
        1, bins, torch.ones_like(bins, dtype=images.dtype)
    )
    share = counts / counts.sum(dim=1, keepdim=True)
    return -(share * share.clamp_min(1e-12).log2()).sum(dim=1)
