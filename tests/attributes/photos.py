"""Real photographs from the demo wheels, for tests of edits."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

# Interiors, buildings, a road and flowers; bright, dark, plain and detailed ones, all in colour.
PHOTOS = {
    "interior_photos": (
        "pexels-2416933.jpg",
        "pexels-4389955.jpg",
        "pexels-6707631.jpg",
        "pexels-7303773.jpg",
        "pexels-7688357.jpg",
    ),
    "mvtbdata": (
        "church.png",
        "road.png",
        "building2-3.png",
        "eiffel-1.png",
        "flowers1.png",
        "notre-dame.png",
        "parks.png",
    ),
}


def photo_paths() -> list[Path]:
    """Files of the chosen photographs; the test is skipped where the demo wheels are not installed."""
    paths = []
    for package, names in PHOTOS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            pytest.skip(f"needs the demo photographs (extra 'demo'): {package} is not installed")
        paths += [Path(spec.origin).parent / "images" / name for name in names]
    return paths


@cache
def photos(height: int = 224, width: int = 224) -> torch.Tensor:
    """(B, 3, height, width) in 0..1, cropped to that shape and scaled."""
    return torch.stack([_read(path, height, width) for path in photo_paths()])


def _read(path: Path, height: int, width: int) -> torch.Tensor:
    with Image.open(path) as image:
        picture = image.convert("RGB")
    share = min(picture.width / width, picture.height / height)
    left, top = (picture.width - share * width) / 2, (picture.height - share * height) / 2
    box = (left, top, left + share * width, top + share * height)
    pixels = np.array(picture.resize((width, height), Image.Resampling.LANCZOS, box=box))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
