"""Reading photographs safely.

A photograph comes out as 8-bit sRGB, upright, over white where it was transparent; anything else is an `ImageError`.
Half a photograph is never returned: truncated files are errors.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from contextlib import nullcontext
from pathlib import Path

import pillow_heif
from PIL import Image, ImageFile

from calm.data.store.pixels import RAW_SUFFIXES, NoRangeError, open_raw, upright_srgb

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "HEIF", "AVIF")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp"),
    *(".heic", ".heif", ".hif", ".avif"),
)
MIN_SIDE = 64  # pixels of the shorter side, as stored: what edits of attributes need
SHARP = 3  # a JPEG's decoder scales down less sharply than `fit`: this many times the wanted size are left to `fit`
LARGE = 50_000_000  # pixels: of photographs with more only one is decoded at a time, whatever the number of threads

_decoding_large = threading.Lock()
pillow_heif.register_heif_opener(thumbnails=False)
# What decoders warn of either shows or is an error; a filter for each reading would not be safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(ValueError):
    """A file that cannot be used as a photograph; the message names it and says why."""


def read_image(
    source: Path | bytes, *, max_pixels: int, name: str | None = None, max_side: int | None = None
) -> Image.Image:
    """Decode one photograph completely.

    Args:
        source: a file, or its bytes.
        max_pixels: width times height allowed; checked before any pixel is decoded.
        name: how errors call it, when `source` is bytes.
        max_side: pixels of the longer side at most; a JPEG is then decoded at a smaller scale, in less time and memory.

    Returns:
        Mode RGB, 8 bits, sRGB. Of an animation, the first frame; of a RAW file (by its suffix), the preview in it.

    Raises:
        ImageError: not an allowed format, too many pixels, truncated or damaged, or pixels without a known range.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    # Other libraries switch this on for the whole process; half-decoded photographs are never wanted here.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None  # the bound is `max_pixels`
    try:
        with _opened(source if isinstance(source, Path) else io.BytesIO(source), Path(name).suffix) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(f"{name}: {width}x{height} pixels, more than the {max_pixels} allowed")
            if max_side is not None:
                scale = SHARP * max_side / max(width, height)
                image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))  # for a JPEG; at least that
            with _decoding_large if image.width * image.height > LARGE else nullcontext():
                image.load()
                return upright_srgb(image, max_side)
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        kinds = ", ".join(FORMATS)
        raise ImageError(f"{name}: not a photograph in an allowed format ({kinds}), or not a whole one") from None
    except NoRangeError as error:
        raise ImageError(f"{name}: {error}") from None
    except ImportError:
        raise ImageError(f"{name}: a camera's RAW file: to read it, pip install rawpy (calm's extra `raw`)") from None
    except Exception as error:  # decoders of damaged files raise almost anything
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not a decoder's
            raise ImageError(f"{name}: {error.strerror}") from None
        raise ImageError(f"{name}: truncated or damaged ({type(error).__name__}: {error})") from error


def _opened(source: Path | io.BytesIO, suffix: str) -> Image.Image:
    return open_raw(source) if suffix.lower() in RAW_SUFFIXES else Image.open(source, formats=FORMATS)


def encode(image: Image.Image, quality: int) -> bytes:
    """JPEG bytes of an RGB photograph, with full chroma resolution (4:4:4) and no metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
