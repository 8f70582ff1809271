"""Pairs of items that show one photograph: scaled, recompressed, mirrored, or one of them slightly cropped.

Candidates come from hashes: of each item as it is and mirrored, against the other's as it is and slightly cropped, both
ways round. Thumbnails decide.

All pairs of 64-bit hashes within a Hamming distance are found exactly, without comparing all with all, by multi-index
hashing (Norouzi, Punjani and Fleet, CVPR 2012): cut every hash into m bands. Two hashes at most `distance` = m * r + a
bits apart differ by at most r bits in one of the first a + 1 bands or by at most r - 1 bits in one of the others. So it
is enough to look up every key that near to a query's band, and to compare whole hashes there. How many bands, or
whether comparing all with all is cheaper, is decided from the sizes; the pairs are the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calm.data.store.fingerprints import CROPS, FLAT, correlation

HASH_BITS = 64
Hashes = NDArray[np.uint64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]

_BLOCK = 2**21  # pairs compared at a time: 16 MiB for each of a handful of arrays
_QUERIES = 2**18  # queries looked up at a time
_MAX_BAND = 24  # bits; the table of a band has 2**bits entries
# Relative costs, seen on one core: comparing one of all pairs, looking up one key, comparing one pair that was looked
# up, putting one hash into the index of a band.
_COMPARE, _LOOK_UP, _FOLLOW, _INSERT = 1.7, 10.0, 16.0, 120.0
MOST = 16  # of test items with one and the same hash, so many are candidates
_ROWS = 4096  # thumbnails looked at at a time
Positions = NDArray[np.int64]


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


@dataclass(frozen=True)
class Looks:
    """What N items look like.

    `whole` (N, 2): hashes of each item as it is and mirrored; `crops` (N, CROPS): as it is, slightly cropped;
    `thumbnails` (N, SIDE, SIDE) of grey levels.
    """

    whole: NDArray[np.uint64]
    crops: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]

    def parts(self, items: Positions) -> Hashes:
        """(N, 1 + CROPS) hashes of the items as they are, whole and cropped: in the order of BOXES."""
        return np.concatenate([self.whole[items, :1], self.crops[items]], axis=1)

    def showing(self, items: Positions) -> Positions:
        """Those items whose thumbnails show anything: the hash of a flat picture is noise."""
        spread = [
            self.thumbnails[items[begin : begin + _ROWS]].std(axis=(1, 2)) for begin in range(0, len(items), _ROWS)
        ]
        return items[np.concatenate([np.zeros(0), *spread]) >= FLAT]


def near_duplicates(looks: Looks, left: Positions, right: Positions, distance: int, least: float) -> pd.DataFrame:
    """Pairs of an item of `left` and one of `right` that show one photograph.

    Args:
        left, right: positions in `looks`.
        distance: hashes at most so many bits apart make a pair a candidate.
        least: correlation of the thumbnails from which a candidate is a pair.

    Returns:
        One row for each item of `left` that has a partner, with its nearest: columns left, right (positions), distance,
        correlation, mirrored, cropped (nearer as a part of the other than as a whole). Ordered by left.
    """
    pairs = candidates(looks, looks.showing(left), looks.showing(right), distance)
    pairs["correlation"] = correlations(looks, pairs)
    pairs = pairs[pairs["correlation"] >= least]
    pairs = pairs.sort_values(["left", "distance", "correlation", "right"], ascending=[True, True, False, True])
    nearest = pairs.drop_duplicates("left", ignore_index=True)
    columns = ["left", "right", "distance", "correlation", "mirrored"]
    return nearest[columns].assign(correlation=nearest["correlation"].round(4), cropped=nearest["box"] > 0)


def candidates(looks: Looks, left: Positions, right: Positions, distance: int) -> pd.DataFrame:
    """Pairs with near hashes. Of the crops through which two items are near, the nearest.

    Returns:
        Columns left, right; whole, part (the same two positions: which is seen as the part BOXES[box] of which); box,
        mirrored, distance.
    """
    first, second, bits = near_pairs(looks.whole[left].ravel(), looks.parts(right).ravel(), distance, MOST)
    item, (partner, box) = left[first // 2], np.divmod(second, 1 + CROPS)
    found = [_pairs(item, right[partner], right[partner], item, box, first % 2 == 1, bits)]
    first, second, bits = near_pairs(looks.crops[left].ravel(), looks.whole[right].ravel(), distance, MOST)
    (item, box), partner = np.divmod(first, CROPS), right[second // 2]
    item = left[item]
    found.append(_pairs(item, partner, item, partner, box + 1, second % 2 == 1, bits))
    pairs = pd.concat(found, ignore_index=True)
    pairs = pairs.sort_values(["left", "right", "whole", "mirrored", "distance", "box"], ignore_index=True)
    return pairs.drop_duplicates(["left", "right", "whole", "mirrored"], ignore_index=True)


def _pairs(
    left: Positions,
    right: Positions,
    whole: Positions,
    part: Positions,
    box: Positions,
    mirrored: NDArray[np.bool_],
    distance: NDArray[np.uint8],
) -> pd.DataFrame:
    columns = {"left": left, "right": right, "whole": whole, "part": part, "box": box}
    return pd.DataFrame({**columns, "mirrored": mirrored, "distance": distance.astype(np.int32)})


def correlations(looks: Looks, pairs: pd.DataFrame) -> NDArray[np.float64]:
    """Of each candidate's thumbnails, as many at a time as memory is meant for."""
    columns = [pairs[name].to_numpy() for name in ("whole", "box", "part", "mirrored")]
    found = np.zeros(len(pairs))
    for begin in range(0, len(pairs), _ROWS):
        whole, box, part, mirrored = (column[begin : begin + _ROWS] for column in columns)
        found[begin : begin + _ROWS] = correlation(looks.thumbnails[whole], box, looks.thumbnails[part], mirrored)
    return found
