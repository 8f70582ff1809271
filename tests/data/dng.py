"""A small camera RAW file: a DNG of a plain mosaic, with or without a JPEG preview."""

from __future__ import annotations

import struct

import numpy as np

SHORT, LONG, RATIONAL, SIGNED, BYTE, ASCII = 3, 4, 5, 10, 1, 2


def dng(preview: bytes = b"", size: tuple[int, int] = (0, 0), orientation: int = 1, mosaic: int = 256) -> bytes:
    """The preview (JPEG bytes of `size`) stands first, the mosaic of grey in a further folder, as cameras do it."""
    pixels = np.full((mosaic, mosaic), 6000, "<u2").tobytes()
    start = 8 + len(preview) + len(pixels)
    sensor = _folder(
        start,
        {
            254: (LONG, [0]),
            256: (LONG, [mosaic]),
            257: (LONG, [mosaic]),
            258: (SHORT, [16]),
            259: (SHORT, [1]),
            262: (SHORT, [32803]),
            273: (LONG, [8 + len(preview)]),
            277: (SHORT, [1]),
            278: (LONG, [mosaic]),
            279: (LONG, [len(pixels)]),
            33421: (SHORT, [2, 2]),
            33422: (BYTE, [0, 1, 1, 2]),
            50717: (LONG, [16383]),
        },
    )
    width, height = size
    first = {
        254: (LONG, [1]),
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [7]),
        262: (SHORT, [6]),
        273: (LONG, [8]),
        277: (SHORT, [3]),
        278: (LONG, [height]),
        279: (LONG, [len(preview)]),
    }
    common = {
        271: (ASCII, list(b"calm\0")),
        272: (ASCII, list(b"test\0")),
        274: (SHORT, [orientation]),
        330: (LONG, [start]),
        50706: (BYTE, [1, 4, 0, 0]),
        50721: (SIGNED, [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]),
        50728: (RATIONAL, [1, 1, 1, 1, 1, 1]),
    }
    main = start + len(sensor)
    tags = dict(sorted(((first if preview else {}) | common).items()))
    return struct.pack("<2sHI", b"II", 42, main) + preview + pixels + sensor + _folder(main, tags)


def _folder(start: int, tags: dict[int, tuple[int, list[int]]]) -> bytes:
    """A TIFF folder that begins at `start`, what does not fit into four bytes behind it."""
    entries, behind = b"", b""
    after = start + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in tags.items():
        letter = {SHORT: "H", LONG: "I", RATIONAL: "I", SIGNED: "i", BYTE: "B", ASCII: "B"}[kind]
        data = struct.pack(f"<{len(values)}{letter}", *values)
        count = len(values) // 2 if kind in (RATIONAL, SIGNED) else len(values)
        if len(data) > 4:
            place = struct.pack("<I", after + len(behind))
            behind += data + b"\0" * (len(data) % 2)
        else:
            place = data.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, count) + place
    return struct.pack("<H", len(tags)) + entries + bytes(4) + behind
