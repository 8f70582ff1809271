"""All pairs of 64-bit hashes within a Hamming distance, exactly, without comparing all with all.

Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012): cut every hash into m bands. Two hashes at most
`distance` = m * r + a bits apart differ by at most r bits in one of the first a + 1 bands or by at most r - 1 bits in
one of the others. So it is enough to look up every key that near to a query's band, and to compare whole hashes there.
How many bands, or whether comparing all with all is cheaper, is decided from the sizes; the pairs are the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 64
Hashes = NDArray[np.uint64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]

_BLOCK = 2**21  # pairs compared at a time: 16 MiB for each of a handful of arrays
_QUERIES = 2**18  # queries looked up at a time
_MAX_BAND = 24  # bits; the table of a band has 2**bits entries
# Relative costs, seen on one core: comparing one of all pairs, looking up one key, comparing one pair that was looked
# up, putting one hash into the index of a band.
_COMPARE, _LOOK_UP, _FOLLOW, _INSERT = 1.7, 10.0, 16.0, 120.0


@dataclass(frozen=True)
class Band:
    """`width` bits of a hash above bit `shift`, and how many of them may differ."""

    shift: int
    width: int
    radius: int

    @property
    def keys(self) -> int:
        """Number of keys within the radius of a key."""
        return sum(math.comb(self.width, bits) for bits in range(self.radius + 1))

    def of(self, hashes: Hashes) -> NDArray[np.int64]:
        """(N,) keys of this band."""
        mask = np.uint64(2**self.width - 1)
        return ((hashes >> np.uint64(self.shift)) & mask).astype(np.int64)

    def masks(self) -> Iterator[int]:
        """What to XOR a key with, for every key within the radius."""
        for bits in range(self.radius + 1):
            for places in itertools.combinations(range(self.width), bits):
                yield sum(1 << place for place in places)


def near_pairs(left: Hashes, right: Hashes, distance: int, most: int | None = None) -> Pairs:
    """All pairs of a hash of `left` (N,) and one of `right` (M,) at most `distance` bits apart.

    Args:
        most: of equal hashes in `right` only the first so many are paired; None = all.

    Returns:
        Positions in `left`, positions in `right`, and Hamming distances, each (P,), ordered by the positions.
    """
    ours, theirs = Distinct.of(left), Distinct.of(right)
    first, second, bits = _distinct_pairs(ours.hashes, theirs.hashes, distance)
    of_left, pair = ours.positions(first)
    of_right, again = theirs.positions(second[pair], most)
    of_left, bits = of_left[again], bits[pair][again]
    order = np.lexsort((of_right, of_left))
    return of_left[order], of_right[order], bits[order]


@dataclass(frozen=True)
class Distinct:
    """The distinct hashes of many, and where each stands: `order[begins[i]:begins[i + 1]]`, ascending."""

    hashes: Hashes
    order: NDArray[np.int64]
    begins: NDArray[np.int64]

    @classmethod
    def of(cls, hashes: Hashes) -> Distinct:
        """Sort them."""
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        new = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        begins = np.concatenate([np.zeros(min(1, len(hashes)), np.int64), new])
        return cls(ordered[begins], order, np.append(begins, len(hashes)))

    def positions(self, chosen: NDArray[np.int64], most: int | None = None) -> tuple[NDArray[np.int64], ...]:
        """Where the chosen distinct hashes stand (P,), each at most `most` times, and the place in `chosen` (P,)."""
        counts = self.begins[chosen + 1] - self.begins[chosen]
        if most is not None:
            counts = np.minimum(counts, most)
        place = np.repeat(np.arange(len(chosen)), counts)
        inside = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.order[self.begins[chosen][place] + inside], place


def _distinct_pairs(left: Hashes, right: Hashes, distance: int) -> Pairs:
    """`near_pairs` of hashes that are all distinct, in any order: the fewer are looked up among the more."""
    if len(left) > len(right):
        second, first, bits = _distinct_pairs(right, left, distance)
        return first, second, bits
    bands = plan(len(left), len(right), distance)
    return _by_bands(left, right, distance, bands) if bands else _all_with_all(left, right, distance)


def plan(queries: int, entries: int, distance: int) -> tuple[Band, ...]:
    """The bands that cost least for so many distinct hashes; none where comparing all with all costs less."""
    cheapest: tuple[Band, ...] = ()
    least = _COMPARE * queries * entries
    for number in range(2, 17):
        bands = cut(number, distance)
        if bands[0].width > _MAX_BAND:
            continue
        cost = _INSERT * number * (queries + entries)
        cost += sum(queries * band.keys * (_LOOK_UP + _FOLLOW * entries / 2**band.width) for band in bands)
        if cost < least:
            cheapest, least = bands, cost
    return cheapest


def cut(number: int, distance: int) -> tuple[Band, ...]:
    """The hash in so many bands; those that need not be looked up at all (radius below 0) are left out."""
    radius, more = divmod(distance, number)
    ends = [round(HASH_BITS * place / number) for place in range(number + 1)]
    bands = [
        Band(start, end - start, radius if place <= more else radius - 1)
        for place, (start, end) in enumerate(itertools.pairwise(ends))
    ]
    return tuple(band for band in bands if band.radius >= 0)


def _by_bands(queries: Hashes, index: Hashes, distance: int, bands: tuple[Band, ...]) -> Pairs:
    """Pairs of distinct hashes by multi-index hashing."""
    found = [pair for band in bands for pair in _by_band(queries, index, distance, band)]
    pairs = np.unique(np.concatenate([np.zeros(0, np.int64), *found]))  # a pair may be near in several bands
    first, second = np.divmod(pairs, len(index))
    return first, second, np.bitwise_count(queries[first] ^ index[second])


def _by_band(queries: Hashes, index: Hashes, distance: int, band: Band) -> Iterator[NDArray[np.int64]]:
    """Numbers query * len(index) + entry of the pairs that are near in this band and near as a whole."""
    keys = band.of(index)
    order = np.argsort(keys)
    starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=2**band.width))])
    entries = index[order]
    asked = band.of(queries)
    places = np.argsort(asked)  # neighbouring keys are neighbours in the table
    for begin in range(0, len(places), _QUERIES):
        some = places[begin : begin + _QUERIES]
        hashes, wanted = queries[some], asked[some]
        for mask in band.masks():
            near = wanted ^ mask
            start = starts[near]
            counts = starts[near + 1] - start
            for query, entry in _follow(start, counts):
                close = np.bitwise_count(hashes[query] ^ entries[entry]) <= distance
                if close.any():
                    yield some[query[close]] * len(index) + order[entry[close]]


def _follow(start: NDArray[np.int64], counts: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Pairs (query, entry) for entries start .. start + count of every query, a bounded number at a time."""
    hit = np.flatnonzero(counts)
    ends = np.cumsum(counts[hit])
    begin = 0
    while begin < len(hit):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + _BLOCK, side="right")))
        some, number = hit[begin:end], counts[hit[begin:end]]
        total = int(ends[end - 1] - before)
        entry = np.arange(total) + np.repeat(start[some] - (ends[begin:end] - number - before), number)
        yield np.repeat(some, number), entry
        begin = end


def _all_with_all(left: Hashes, right: Hashes, distance: int) -> Pairs:
    """Pairs by XOR of all with all, in blocks."""
    rows = max(1, _BLOCK // max(1, len(right)))
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))]
    for begin in range(0, len(left), rows):
        bits = np.bitwise_count(left[begin : begin + rows, None] ^ right[None, :])
        first, second = np.nonzero(bits <= distance)
        found.append((first + begin, second, bits[first, second]))
    first, second, bits = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, bits
