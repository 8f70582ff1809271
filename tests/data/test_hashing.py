"""The index finds exactly the pairs that comparing all with all finds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calm.data.leakage import near_duplicates
from calm.data.leakage.near_duplicates import cut, near_pairs, plan

Hashes = NDArray[np.uint64]


def random_hashes(count: int, seed: int) -> Hashes:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def clustered_hashes(count: int, seed: int) -> Hashes:
    """Few centres, each bit flipped with a chance of one in eight; many hashes are there several times."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).integers(0, 2**64, 5, dtype=np.uint64)
    flips = np.packbits(rng.random((count, 64)) < 0.125, axis=1).view(np.uint64)[:, 0]
    flips[: count // 3] = 0
    return centres[rng.integers(0, 5, count)] ^ flips


def all_with_all(left: Hashes, right: Hashes, distance: int) -> set[tuple[int, int, int]]:
    bits = np.bitwise_count(left[:, None] ^ right[None])
    return {(int(i), int(j), int(bits[i, j])) for i, j in zip(*np.nonzero(bits <= distance), strict=True)}


@pytest.mark.parametrize("make", [random_hashes, clustered_hashes])
@pytest.mark.parametrize("distance", [0, 1, 6, 8, 11, 32])
def test_pairs_are_those_of_all_with_all(make: object, distance: int) -> None:
    left, right = make(300, 1), make(400, 2)  # type: ignore[operator]
    right[:20] = left[:20] ^ np.uint64(0b101)
    first, second, bits = near_pairs(left, right, distance)
    assert set(zip(first.tolist(), second.tolist(), bits.tolist(), strict=True)) == all_with_all(left, right, distance)
    assert len(first) == len(all_with_all(left, right, distance))
    assert (np.lexsort((second, first)) == np.arange(len(first))).all()


@pytest.mark.parametrize("number", [2, 3, 4, 7, 16])
@pytest.mark.parametrize("distance", [0, 3, 8, 9])
def test_every_number_of_bands_finds_the_same(number: int, distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK", 50)
    monkeypatch.setattr(near_duplicates, "_QUERIES", 37)
    if cut(number, distance)[0].width > 24:
        pytest.skip("such a band has too large a table")
    left, right = clustered_hashes(150, 3), clustered_hashes(170, 4)
    monkeypatch.setattr(near_duplicates, "plan", lambda *_: cut(number, distance))
    first, second, bits = near_pairs(left, right, distance)
    assert set(zip(first.tolist(), second.tolist(), bits.tolist(), strict=True)) == all_with_all(left, right, distance)


def test_many_hashes_are_searched_by_bands_and_wide_distances_all_with_all() -> None:
    assert [band.width for band in plan(1_000_000, 1_000_000, 8)] == [21, 22, 21]
    assert plan(1_000_000, 1_000_000, 32) == ()
    assert plan(10, 10, 8) == ()


def test_bands_cover_every_bit_once() -> None:
    for number in range(2, 17):
        bits = [bit for band in cut(number, 40) for bit in range(band.shift, band.shift + band.width)]
        assert bits == list(range(64))


def test_of_equal_hashes_only_so_many_are_paired() -> None:
    left, right = np.array([7, 7, 9], dtype=np.uint64), np.array([7, 7, 9, 7], dtype=np.uint64)
    first, second, _ = near_pairs(left, right, 0, most=2)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]


def test_nothing_is_near_to_nothing() -> None:
    none = np.zeros(0, dtype=np.uint64)
    for left, right in ((none, none), (none, random_hashes(3, 0)), (random_hashes(3, 0), none)):
        assert all(len(part) == 0 for part in near_pairs(left, right, 8))
