"""A camera's RAW file as the camera shows it: the preview that it holds; developed where that is small or missing."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import ExifTags, Image

SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"),
    ".x3f",
)
LEAST_PREVIEW = 1000  # pixels of its longer side


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
