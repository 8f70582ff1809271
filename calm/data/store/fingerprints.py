"""What is kept of a photograph to know it again when it was cropped: hashes of slightly cropped versions, a thumbnail.

The perceptual hash of a whole photograph survives scaling, recompression and, where the mirrored one is asked too,
mirroring; it does not survive a crop. So `prepare` hashes every photograph as it would look with 5 or 10 % cut off at
each choice of sides. Such hashes are near too often by chance to be proof among billions of pairs: what they point
at is laid over one another as thumbnails, and the correlation decides. Rates of both steps: docs/benchmarks/leakage.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dct

MARGINS = (0.05, 0.10)  # share of width or height cut off at a side
# Left, top, right, bottom, as shares of width and height; the whole photograph first.
BOXES = (
    (0.0, 0.0, 1.0, 1.0),
    *(
        (left * margin, top * margin, 1 - right * margin, 1 - bottom * margin)
        for margin in MARGINS
        for left, top, right, bottom in itertools.product((0, 1), repeat=4)
        if left or top or right or bottom
    ),
)
CROPS = len(BOXES) - 1
SIDE = 32  # pixels of the thumbnail, and of what is hashed
FLAT = 2.0  # grey levels of standard deviation below which a thumbnail shows nothing to recognise

_GREY_SIDE = 128  # pixels of the shorter side from which crops are scaled: the hash looks no closer
_FREQUENCIES = 8
_COMPARED = 24  # side of the grid on which thumbnails are compared
_STEPS = (0.04, 0.02, 0.02, 0.01, 0.01)  # moves of a crop's sides, as shares of the photograph
_BATCH = 2048
Thumbnails = NDArray[np.uint8]


@dataclass(frozen=True)
class Fingerprint:
    """As a row of FINGERPRINT: `crops` holds CROPS little-endian 64-bit hashes, `thumbnail` SIDE x SIDE grey levels."""

    crops: bytes
    thumbnail: bytes


def fingerprint(image: Image.Image) -> Fingerprint:
    """Hashes of the crops BOXES[1:] of a photograph (mode RGB), and its thumbnail."""
    grey = image.convert("L")
    scale = _GREY_SIDE / min(grey.size)
    if scale < 1:
        grey = grey.resize((round(grey.width * scale), round(grey.height * scale)), Image.Resampling.LANCZOS)
    pictures = np.stack([_part(grey, box) for box in BOXES])
    return Fingerprint(_hashes(pictures[1:]).astype("<u8").tobytes(), pictures[0].tobytes())


def perceptual_hash(image: Image.Image) -> str:
    """64-bit DCT hash as 16 hex digits (ImageHash's phash: no randomness, tolerant of scaling and recompression)."""
    return str(imagehash.phash(image))


def _part(grey: Image.Image, box: tuple[float, float, float, float]) -> Thumbnails:
    """(SIDE, SIDE) grey levels of a part of a photograph."""
    left, top, right, bottom = box
    pixels = (left * grey.width, top * grey.height, right * grey.width, bottom * grey.height)
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=pixels))


def _hashes(pictures: Thumbnails) -> NDArray[np.uint64]:
    """ImageHash's phash of (N, SIDE, SIDE) grey pictures: which low DCT coefficients are above their median."""
    basis = dct(np.eye(SIDE), axis=0)[:_FREQUENCIES]
    spectrum = (basis @ pictures @ basis.T).reshape(len(pictures), _FREQUENCIES**2)
    bits = spectrum > np.median(spectrum, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def correlation(
    whole: Thumbnails, box: NDArray[np.intp], part: Thumbnails, mirrored: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """How well each `part` (N, SIDE, SIDE) fits into its `whole` near the crop BOXES[box], in -1..1.

    The sides of the crop are moved as long as that helps, since the photograph was hardly cropped exactly as BOXES are.
    `mirrored` (N,) says which parts are flipped left to right first. Of a flat picture the correlation is 0.
    """
    boxes = np.array(BOXES, dtype=np.float32)
    found = np.zeros(len(whole))
    for begin in range(0, len(whole), _BATCH):
        batch = slice(begin, begin + _BATCH)
        turned = np.where(mirrored[batch, None, None], part[batch, :, ::-1], part[batch])
        found[batch] = _fit(whole[batch].astype(np.float32), boxes[box[batch]], turned.astype(np.float32))
    return found


def _fit(whole: NDArray[np.float32], sides: NDArray[np.float32], part: NDArray[np.float32]) -> NDArray[np.float32]:
    """The best correlation that moving the sides (N, 4) one by one arrives at."""
    target = _standard(_cut(part, np.tile(np.array(BOXES[:1], dtype=np.float32), (len(part), 1))))
    best = (_standard(_cut(whole, sides)) * target).sum(axis=1)
    for step, side, sign in itertools.product(_STEPS, range(4), (-1, 1)):
        moved = sides.copy()
        moved[:, side] = np.clip(moved[:, side] + sign * step, 0, 1)
        value = (_standard(_cut(whole, moved)) * target).sum(axis=1)
        better = value > best
        sides, best = np.where(better[:, None], moved, sides), np.maximum(value, best)
    return best


def _cut(pictures: NDArray[np.float32], sides: NDArray[np.float32]) -> NDArray[np.float32]:
    """Parts of pictures on a grid of _COMPARED x _COMPARED points, interpolated linearly."""
    rows = _cut_rows(pictures, sides[:, 1], sides[:, 3])
    return _cut_rows(rows.transpose(0, 2, 1), sides[:, 0], sides[:, 2]).transpose(0, 2, 1)


def _cut_rows(
    pictures: NDArray[np.float32], begin: NDArray[np.float32], end: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The same along the first axis of each picture."""
    shares = (np.arange(_COMPARED, dtype=np.float32) + 0.5) / _COMPARED
    places = (begin[:, None] + (end - begin)[:, None] * shares) * SIDE - 0.5
    places = places.clip(0, SIDE - 1)
    before = np.minimum(places.astype(np.intp), SIDE - 2)
    weight = (places - before)[..., None].astype(np.float32)
    picture = np.arange(len(pictures))[:, None]
    return pictures[picture, before] * (1 - weight) + pictures[picture, before + 1] * weight


def _standard(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, pixels) of zero mean and length 1; zeros where a picture is flat."""
    flat = pictures.reshape(len(pictures), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    standard: NDArray[np.float32] = np.where(length > 0, centred / np.maximum(length, 1e-6), 0)
    return standard
