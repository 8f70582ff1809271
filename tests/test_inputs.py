"""However a photograph is given, the model sees the same pixels; what is none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from calm.assistant.inputs import listed, opened
from calm.data.store.images import ImageError

PIXELS = np.random.default_rng(17).integers(0, 256, (48, 80, 3), np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "it.png"
    Image.fromarray(PIXELS).save(path)
    return path


def ways(file: Path) -> list[Any]:
    tensor = torch.from_numpy(PIXELS).movedim(-1, 0) / 255
    return [file, str(file), Image.open(file), PIXELS, tensor, tensor.double(), tensor.requires_grad_()]


def test_pixels_are_the_same_however_a_photograph_is_given(file: Path) -> None:
    for given in ways(file):
        (one,) = listed(given)
        assert np.array_equal(np.asarray(opened(one)), PIXELS), type(given)


def test_a_large_jpeg_is_decoded_at_a_smaller_scale_and_looks_the_same(tmp_path: Path) -> None:
    smooth = Image.fromarray(PIXELS[:12, :20]).resize((4000, 2400), Image.Resampling.BICUBIC)
    file = tmp_path / "large.jpg"
    smooth.save(file, quality=95)
    by_decoder, by_pillow = (np.asarray(opened(given), np.float64) for given in (file, Image.open(file)))
    assert by_decoder.shape == by_pillow.shape == (614, 1024, 3)
    assert np.abs(by_decoder - by_pillow).mean() < 1  # of 255


def test_a_batch_is_its_members() -> None:
    batch = np.stack([PIXELS, 255 - PIXELS])
    for given in (batch, torch.from_numpy(batch).movedim(-1, 1) / 255, list(batch), tuple(batch)):
        assert np.array_equal([np.asarray(opened(one)) for one in listed(given)], batch)


@pytest.mark.parametrize("none", [[], (), np.zeros((0, 8, 8, 3), np.uint8), torch.zeros(0, 3, 8, 8)])
def test_nothing_is_told(none: Any) -> None:
    with pytest.raises(ValueError, match="no photographs were given"):
        listed(none)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (PIXELS.astype(np.float32), "ndarray of float32, shape"),
        (PIXELS[..., :2], "uint8 array"),
        (PIXELS[..., 0], "shape"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
        (torch.from_numpy(PIXELS), "Tensor of torch.uint8"),
        (torch.from_numpy(PIXELS).movedim(-1, 0).float(), "give values from 0 to 1"),
        (torch.full((3, 8, 8), float("nan")), "give values from 0 to 1"),
        (None, "no photograph: NoneType"),
        (7, "no photograph: int"),
    ],
)
def test_what_is_no_photograph_is_named(wrong: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        opened(wrong)


def test_what_cannot_hold_photographs_is_named() -> None:
    with pytest.raises(TypeError, match="no photograph: dict"):
        listed({"photo.jpg": 1})  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        opened("nowhere.jpg")
