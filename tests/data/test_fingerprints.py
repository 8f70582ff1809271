"""A photograph is known again after a crop, and not mistaken for another."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from calm.data.store import tables
from calm.data.store.fingerprints import BOXES, CROPS, SIDE, correlation, fingerprint, perceptual_hash
from calm.data.store.tables import FINGERPRINT
from tests.data.conftest import picture


def hashes(image: Image.Image) -> np.ndarray:
    return np.frombuffer(fingerprint(image).crops, "<u8")


def thumbnail(image: Image.Image) -> np.ndarray:
    return np.frombuffer(fingerprint(image).thumbnail, np.uint8).reshape(SIDE, SIDE)


def test_widths_are_those_of_the_schema() -> None:
    made = fingerprint(picture(0))
    assert len(made.crops) == 8 * CROPS == FINGERPRINT.field("crops").type.byte_width
    assert len(made.thumbnail) == SIDE * SIDE == FINGERPRINT.field("thumbnail").type.byte_width
    assert tables.THUMBNAIL == (SIDE, SIDE)


def test_the_hash_of_a_crop_is_the_perceptual_hash_of_the_cropped_photograph() -> None:
    image = picture(1, (400, 300))
    for number in (0, 7, 20, 29):
        left, top, right, bottom = BOXES[1 + number]
        cropped = image.crop((round(left * 400), round(top * 300), round(right * 400), round(bottom * 300)))
        assert (int(perceptual_hash(cropped), 16) ^ int(hashes(image)[number])).bit_count() <= 2


def test_a_crop_between_the_boxes_fits_where_it_was_cut_and_nowhere_else() -> None:
    image, other = picture(2, (400, 300)), picture(3, (400, 300))
    part = image.crop((28, 9, 388, 290))
    near = np.array([int(box == (0.05, 0.05, 0.95, 0.95)) for box in BOXES]).argmax()
    whole = np.stack([thumbnail(image), thumbnail(image), thumbnail(other)])
    parts = np.stack([thumbnail(part), thumbnail(ImageOps.mirror(part)), thumbnail(part)])
    fits = correlation(whole, np.full(3, near), parts, np.array([False, True, False]))
    assert fits[0] > 0.97
    assert fits[1] > 0.97
    assert fits[2] < 0.6


def test_a_flat_picture_correlates_with_nothing() -> None:
    flat = np.full((1, SIDE, SIDE), 90, np.uint8)
    assert correlation(flat, np.zeros(1, np.intp), flat, np.zeros(1, bool)) == 0
    assert correlation(thumbnail(picture(1))[None], np.zeros(1, np.intp), flat, np.zeros(1, bool)) == 0
