"""Reading photographs safely, and the shards that hold them afterwards.

A photograph comes out as 8-bit sRGB, upright, over white where it was transparent; anything else is an `ImageError`.
Half a photograph is never returned: truncated files are errors.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
from PIL import Image, ImageCms, ImageFile, ImageOps

from calm.data.store.schema import IMAGE

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp")
MIN_SIDE = 64  # pixels of the shorter side, as stored: what edits of attributes need
SHARD_PATTERN = "images-*.arrow"
_ALPHA_MODES = {"RGBA", "RGBa", "LA", "La", "PA"}
_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.createProfile("LAB")


class ImageError(ValueError):
    """A file that cannot be used as a photograph; the message names it and says why."""


class _NoRangeError(ValueError):
    """Numbers of which nobody says which is white."""


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
        Mode RGB, 8 bits, sRGB. Of an animation, the first frame.

    Raises:
        ImageError: not an allowed format, too many pixels, truncated or damaged, or pixels without a known range.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    # Other libraries switch this on for the whole process; half-decoded photographs are never wanted here.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None  # the bound is `max_pixels`
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror or error}") from error
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(f"{name}: {width}x{height} pixels, more than the {max_pixels} allowed")
            if max_side is not None:
                scale = max_side / max(width, height)
                image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))  # for a JPEG; at least that
            image.load()
            whole = upright_srgb(image)
            return whole if max_side is None else fit(whole, max_side)
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"{name}: not a photograph in an allowed format ({', '.join(FORMATS)})") from None
    except _NoRangeError as error:
        raise ImageError(f"{name}: {error}") from None
    except Exception as error:  # decoders of damaged files raise almost anything
        raise ImageError(f"{name}: truncated or damaged ({type(error).__name__}: {error})") from error


def fit(image: Image.Image, max_side: int) -> Image.Image:
    """Scale down (Lanczos) so that the longer side is at most `max_side` pixels; never up."""
    scale = max_side / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def encode(image: Image.Image, quality: int) -> bytes:
    """JPEG bytes of an RGB photograph, with full chroma resolution (4:4:4) and no metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def upright_srgb(image: Image.Image) -> Image.Image:
    """8-bit sRGB, turned as its EXIF says, over white where it is transparent; what came out stays as it is.

    Raises:
        ValueError: numbers without a known white.
    """
    converted = _converted(image)
    converted.info = {}  # or the profile that it was converted by would count again
    return converted


def _converted(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
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
        return Image.fromarray(np.round(np.asarray(image).astype(np.float64) / 257).astype(np.uint8), "L")
    if image.mode in {"I", "F"}:
        raise _NoRangeError(
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


class ShardWriter:
    """Writes photographs into `images-00000.arrow`, ... of bounded size, in the order given; `first` is the first."""

    def __init__(self, folder: Path, shard_bytes: int = 64 * 2**20, batch_rows: int = 64, first: int = 0) -> None:
        self.folder, self.shard_bytes, self.batch_rows = folder, shard_bytes, batch_rows
        self._count, self._rows, self._size = first, 0, 0
        self._pending: list[tuple[str, bytes]] = []
        self._file: pa.NativeFile | None = None
        self._writer: pa.RecordBatchFileWriter | None = None

    def is_full(self, more: int) -> bool:
        """Whether `more` bytes begin a new shard."""
        return self._writer is not None and self._size + more > self.shard_bytes

    def add(self, item_id: str, data: bytes) -> tuple[str, int]:
        """Append one photograph; return its shard's file name and its row there."""
        if self.is_full(len(data)):
            self.close()
        if self._writer is None:
            self._file = pa.OSFile(str(self.folder / f"images-{self._count:05d}.arrow"), "wb")
            self._writer = pa.ipc.new_file(self._file, IMAGE)
            self._count, self._rows, self._size = self._count + 1, 0, 0
        self._pending.append((item_id, data))
        self._rows, self._size = self._rows + 1, self._size + len(data)
        if len(self._pending) >= self.batch_rows:
            self._write_pending()
        return f"images-{self._count - 1:05d}.arrow", self._rows - 1

    def close(self) -> str | None:
        """Finish the open shard and return its file name; None if there is none."""
        if self._writer is None or self._file is None:
            return None
        self._write_pending()
        self._writer.close()
        self._file.close()
        self._writer = self._file = None
        return f"images-{self._count - 1:05d}.arrow"

    def _write_pending(self) -> None:
        assert self._writer is not None
        if self._pending:
            columns: Sequence[Sequence[object]] = list(zip(*self._pending, strict=True))
            arrays = [pa.array(column, field.type) for column, field in zip(columns, IMAGE, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=IMAGE))
            self._pending = []


class ImageStore:
    """Read-only, memory-mapped access to the photographs of one prepared dataset by `item_id`.

    Cheap to pickle: workers of a data loader map the same files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        paths = sorted(self.folder.glob(SHARD_PATTERN))
        if not paths:
            raise FileNotFoundError(f"{self.folder} holds no image shards: run the stage `prepare` of this dataset")
        self._images: list[pa.ChunkedArray] = []
        self._where: dict[str, tuple[int, int]] = {}
        for number, path in enumerate(paths):
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            if not table.schema.equals(IMAGE):
                raise ValueError(f"{path}: not a shard of photographs")
            self._images.append(table.column("image"))
            for row, item_id in enumerate(table.column("item_id").to_pylist()):
                self._where[item_id] = (number, row)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __getitem__(self, item_id: str) -> Image.Image:
        """The photograph, mode RGB.

        Raises:
            KeyError: no such item; the message names it and the folder.
        """
        data = self.encoded(item_id)
        return read_image(data, max_pixels=Image.MAX_IMAGE_PIXELS or 2**28, name=f"{self.folder}: {item_id}")

    def encoded(self, item_id: str) -> bytes:
        """The stored JPEG bytes."""
        if item_id not in self._where:
            raise KeyError(f"{self.folder} has no item '{item_id}'")
        shard, row = self._where[item_id]
        return cast(bytes, self._images[shard][row].as_py())

    def __reduce__(self) -> tuple[type[ImageStore], tuple[Path]]:
        return (ImageStore, (self.folder,))
