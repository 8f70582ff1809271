"""Pixels as calm wants them: upright, 8-bit sRGB, over white where they are transparent, scaled down.

What is large is scaled before anything else is done to it, so no second copy of its size is made. A camera's RAW file
is taken as the camera shows it: the preview that it holds; developed where that is small or missing.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import cast

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"),
    ".x3f",
)
LEAST_PREVIEW = 1000  # pixels of its longer side
_ALPHA_MODES = {"RGBA", "RGBa", "LA", "La", "PA"}
_SCALABLE = {"L", "RGB", "RGBX", "RGBA", "LA", "CMYK", "YCbCr", "I;16"}  # others Pillow scales by nearest neighbour
_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.createProfile("LAB")
_D50 = (0.9642, 1.0, 0.8249)


def open_raw(source: Path | io.BytesIO) -> Image.Image:
    """The preview, not decoded yet, turned by its EXIF; or the developed pixels, at half the sensor's resolution.

    Raises:
        ImportError: rawpy, calm's extra `raw`, is not installed.
    """
    import rawpy

    with rawpy.imread(str(source) if isinstance(source, Path) else source) as raw:
        try:
            preview = raw.extract_thumb()
        except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
            preview = None
        if preview is not None and preview.format is rawpy.ThumbFormat.JPEG:
            image = Image.open(io.BytesIO(bytes(preview.data)), formats=("JPEG",))
            if max(image.size) >= LEAST_PREVIEW:
                # Many cameras say how they were held in the file and not in its preview.
                image.getexif().setdefault(ExifTags.Base.Orientation, {5: 8}.get(raw.sizes.flip, raw.sizes.flip or 1))
                return image
        return Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=True))


class NoRangeError(ValueError):
    """Numbers of which nobody says which is white."""


def matrix_profile(primaries: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    """An ICC profile of three colours, as XYZ under D50, and one gamma."""
    colours = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), (*primaries, _D50), strict=True))
    tags = {name: b"XYZ \0\0\0\0" + _fixed(colour) for name, colour in colours.items()}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), struct.pack(">4s4xIHxx", b"curv", 1, round(gamma * 256)))
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data) - 2 * (name[1:] == b"TRC"))
        body += data
    size = start + len(body)
    header = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp").ljust(68, b"\0")
    return (header + _fixed(_D50)).ljust(128, b"\0") + table + body


def _fixed(colour: tuple[float, float, float]) -> bytes:
    """XYZ in ICC's fixed-point numbers."""
    return struct.pack(">3i", *(round(65536 * value) for value in colour))


# Adobe RGB (1998): red, green and blue under D50, as profiles have them; and its gamma.
ADOBE_RGB = matrix_profile(
    ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 563 / 256
)


def fit(image: Image.Image, max_side: int) -> Image.Image:
    """Scale down (Lanczos) so that the longer side is at most `max_side` pixels; never up."""
    scale = max_side / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def upright_srgb(image: Image.Image, max_side: int | None = None) -> Image.Image:
    """8-bit sRGB, turned as its EXIF says, over white where it is transparent; what came out stays as it is.

    Args:
        max_side: pixels of the longer side at most.

    Raises:
        NoRangeError: numbers without a known white.
    """
    profile = image.info.get("icc_profile") or (ADOBE_RGB if _is_adobe_rgb(image) else None)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # or else Pillow copies
        image = ImageOps.exif_transpose(image)
    if max_side is not None and image.mode in _SCALABLE and "transparency" not in image.info:
        image = fit(image, max_side)
    converted = _converted(image, profile)
    converted.info = {}  # or the profile that it was converted by would count again
    return converted if max_side is None else fit(converted, max_side)


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF says so without a profile, as cameras do: by DCF's index R03, or by a colour space that it lacks."""
    try:
        space = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = image.getexif().get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
    except Exception:  # damaged EXIF raises almost anything, and the photograph may be whole
        return False
    return space == 2 or str(index).startswith("R03")


def _converted(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif "transparency" in image.info and image.mode in {"1", "L", "RGB"}:
        image = image.convert("RGBA")
    if image.mode not in _ALPHA_MODES:
        return _to_srgb(_eight_bits(image), profile)
    straight = image.convert({"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(image.mode, image.mode))
    # A profile is for the channels that were stored: of grey with transparency, for grey.
    colours = _to_srgb(straight.convert("L" if straight.mode == "LA" else "RGB"), profile)
    white = Image.new("RGB", image.size, "white")
    white.paste(colours, mask=straight.getchannel("A"))
    return white


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit and 1-bit grey to 8 bits. Wider numbers have no known white and are refused."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.round(np.asarray(image) / np.float32(257)).astype(np.uint8), "L")
    if image.mode in {"I", "F"}:
        raise NoRangeError(
            f"pixels of mode {image.mode}, numbers without a known white: save it with 8 or 16 bits a channel"
        )
    return image.convert("L") if image.mode == "1" else image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB by the embedded profile; without a usable one the numbers are taken as sRGB already.

    CIE Lab needs no profile: its numbers are colours.
    """
    if image.mode == "LAB":
        return cast(Image.Image, ImageCms.profileToProfile(image, _LAB, _SRGB, outputMode="RGB"))
    if profile and image.mode in {"RGB", "L", "CMYK"}:
        try:
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, embedded, _SRGB, outputMode="RGB")
            return cast(Image.Image, converted)
        except (ImageCms.PyCMSError, OSError):
            pass  # damaged, or made for another number of channels: as good as none
    return image.convert("RGB")
