"""Photographs as Python code holds them: files, opened by Pillow, arrays, tensors; one or many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from calm.data.store.images import read_image
from calm.data.store.pixels import fit, upright_srgb

MAX_PIXELS = 200_000_000  # width times height of a photograph in a file; more is refused before it is decoded
MAX_SIDE = 1024  # pixels of the longer side that are kept for a model that does not say what it learnt from

Photograph = Image.Image | str | Path | NDArray[np.uint8] | torch.Tensor
Photographs = Photograph | Sequence[Photograph]
TAKEN = (
    "a path, an image opened by Pillow, a uint8 array (height, width, 3), "
    "a floating tensor (3, height, width) of values from 0 to 1, or several of these"
)


def listed(given: Photographs) -> Sequence[Photograph]:
    """Several photographs as they are given, one as a list of one, a batch (B, ...) as its members.

    Raises:
        TypeError: what cannot be a photograph.
        ValueError: there is none.
    """
    if isinstance(given, (np.ndarray, torch.Tensor)):
        photographs: Sequence[Photograph] = list(given) if given.ndim == 4 else [given]
    elif isinstance(given, (Image.Image, str, Path)):
        photographs = [given]
    elif isinstance(given, Sequence):
        photographs = given
    else:
        raise TypeError(f"no photograph: {type(given).__name__}; give {TAKEN}")
    if not len(photographs):
        raise ValueError("no photographs were given")
    return photographs


def opened(photograph: Photograph, max_side: int = MAX_SIDE) -> Image.Image:
    """A photograph in mode RGB, 8 bits, sRGB, upright, scaled down to `max_side`: the same pixels, however it is given.

    But for a JPEG in a file that is larger: its decoder scales it down, which is faster and rounds otherwise.

    Raises:
        ImageError: a file that cannot be used.
        TypeError, ValueError: what cannot be a photograph, with what can.
    """
    if isinstance(photograph, Image.Image):
        return upright_srgb(photograph, max_side)
    if isinstance(photograph, (str, Path)):
        return read_image(Path(photograph), max_pixels=MAX_PIXELS, max_side=max_side)
    if isinstance(photograph, np.ndarray):
        return fit(Image.fromarray(_checked(photograph, photograph.dtype == np.uint8, channels=-1)), max_side)
    if isinstance(photograph, torch.Tensor):
        values = _checked(photograph, photograph.is_floating_point(), channels=0).detach().float().cpu()
        low, high = values.aminmax()
        if not (low >= 0 and high <= 1):  # which NaN is not either
            raise ValueError(f"a tensor with values from {low:.3g} to {high:.3g}: give values from 0 to 1")
        return fit(Image.fromarray((values * 255).round().byte().movedim(0, -1).numpy()), max_side)
    raise TypeError(f"no photograph: {type(photograph).__name__}; give {TAKEN}")


def _checked(values: Any, right_type: bool, *, channels: int) -> Any:
    shape = tuple(values.shape)
    if not right_type or len(shape) != 3 or shape[channels] != 3 or not all(shape):
        raise ValueError(f"{type(values).__name__} of {values.dtype}, shape {shape}: give {TAKEN}")
    return values
