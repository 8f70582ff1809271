"""Pairs of items that show one photograph: scaled, recompressed, mirrored, or one of them slightly cropped.

Candidates come from hashes (`calm.data.leakage.hashing`): of each item as it is and mirrored, against the other's as it
is and slightly cropped, both ways round. Thumbnails decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calm.data.leakage.hashing import Hashes, near_pairs
from calm.data.store.fingerprints import CROPS, FLAT, correlation

MOST = 16  # of test items with one and the same hash, so many are candidates
_ROWS = 4096  # thumbnails looked at at a time
Positions = NDArray[np.int64]


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
    pairs["correlation"] = _correlations(looks, pairs)
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


def _correlations(looks: Looks, pairs: pd.DataFrame) -> NDArray[np.float64]:
    """Of each candidate's thumbnails, as many at a time as memory is meant for."""
    columns = [pairs[name].to_numpy() for name in ("whole", "box", "part", "mirrored")]
    found = np.zeros(len(pairs))
    for begin in range(0, len(pairs), _ROWS):
        whole, box, part, mirrored = (column[begin : begin + _ROWS] for column in columns)
        found[begin : begin + _ROWS] = correlation(looks.thumbnails[whole], box, looks.thumbnails[part], mirrored)
    return found
