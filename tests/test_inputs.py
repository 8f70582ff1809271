"""However a photograph is given, the model sees the same pixels; what is none is named."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from calm.assistant import Calm
from calm.assistant.inputs import listed, opened
from calm.data.store.images import ImageError
from tests.attributes.photos import photo_paths
from tests.data.dng import dng
from tests.data.test_images import ADOBE_RGB, DISPLAY_P3, converted, png16

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


def twins(photograph: Image.Image, folder: Path) -> dict[str, Path]:
    """The same photograph as cameras, phones and editors write it."""
    exif = Image.Exif()
    adobe = Image.Exif()
    adobe.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 2
    exif[ExifTags.Base.Orientation] = 6
    cut_out = photograph.copy()
    cut_out.putalpha(255)
    jpeg = {"quality": 95, "subsampling": 0}
    photograph.save(preview := io.BytesIO(), "JPEG", **jpeg)
    ways: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "plain.jpg": (photograph, jpeg),
        "turned.jpg": (photograph.transpose(Image.Transpose.ROTATE_90), jpeg | {"exif": exif}),
        "phone.heic": (photograph, {"quality": 90}),
        "phone.avif": (photograph, {"quality": 95}),
        "p3.png": (converted(photograph, DISPLAY_P3), {"icc_profile": DISPLAY_P3}),
        "adobe.tif": (converted(photograph, ADOBE_RGB), {"icc_profile": ADOBE_RGB}),
        "adobe-by-exif.jpg": (converted(photograph, ADOBE_RGB), jpeg | {"exif": adobe, "icc_profile": None}),
        "press.tif": (photograph.convert("CMYK"), {}),
        "cut-out.webp": (cut_out, {"lossless": True}),
    }
    for name, (image, options) in ways.items():
        image.save(folder / name, **options)
    (folder / "deep.png").write_bytes(png16(np.asarray(photograph).astype(np.uint16) * 257))
    if importlib.util.find_spec("rawpy"):
        (folder / "camera.dng").write_bytes(dng(preview.getvalue(), photograph.size))
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def calm() -> Calm:
    """The model that comes with calm."""
    return Calm.from_pretrained(device="cpu")


@pytest.mark.parametrize("number", [2, 5])
def test_twins_of_a_photograph_score_alike(number: int, calm: Calm, tmp_path: Path) -> None:
    photograph = Image.open(photo_paths()[number]).convert("RGB")
    photograph.thumbnail((1000, 1000))
    photograph.info.clear()
    files = twins(photograph, tmp_path)
    wide = converted(photograph, ADOBE_RGB)
    wide.info.clear()
    plain, *scores, untold = (one.regression for one in calm.score([photograph, *files.values(), wide]))
    gaps = {name: abs(score - plain) for name, score in zip(files, scores, strict=True)}
    assert {name: gap for name, gap in gaps.items() if gap > 0.05} == {}
    assert abs(untold - plain) > max(gaps["adobe.tif"], gaps["adobe-by-exif.jpg"])  # what a profile is for


def test_stretched_twins_of_most_photographs_score_lower(calm: Calm) -> None:
    """From 5:4 to 10:3 at the same area; ten of the demo's photographs, none of which its scores were learnt from."""
    photographs = [Image.open(path).convert("RGB").resize((500, 400)) for path in photo_paths()[:10]]
    stretched = [photograph.resize((816, 245)) for photograph in photographs]
    plain, wide = ([one.regression for one in calm.score(images)] for images in (photographs, stretched))
    assert sum(np.array(wide) < np.array(plain)) >= 7
