"""Culling: bursts and near-duplicates as groups, the best of each, copies of the best."""

from __future__ import annotations

import filecmp
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from calm.cli.printing import Row, tell

if TYPE_CHECKING:
    from PIL.Image import Image

DISTANCE, CORRELATION = 8, 0.85  # from which two photographs look alike, as in data.leakage of params.yaml
NEAREST = 8  # of the photographs before it, that one is compared with: a series of thousands stays quick
CHUNK = 128  # photographs that are compared with all before them at a time


def fingerprint(image: Image) -> str:
    """What `groups` knows a photograph again by: two hashes, those of crops, a thumbnail; hex digits."""
    from PIL.ImageOps import mirror

    from calm.data.store.fingerprints import fingerprint, perceptual_hash

    looks = fingerprint(image)
    whole = (perceptual_hash(image), perceptual_hash(mirror(image)))
    return "".join((*whole, looks.crops.hex(), looks.thumbnail.hex()))


def groups(fingerprints: Sequence[str]) -> list[int]:
    """(N,) A number for each photograph, equal for those that look alike, or that others between them are like."""
    import numpy as np
    import pandas as pd
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from calm.data.leakage.near_duplicates import Looks, candidates, correlations
    from calm.data.store.fingerprints import CROPS, SIDE

    table = np.stack([np.frombuffer(bytes.fromhex(text), np.uint8) for text in fingerprints])
    whole, crops, thumbnails = np.split(table, [16, 16 + 8 * CROPS], axis=1)
    looks = Looks(
        np.ascontiguousarray(whole).view(">u8").astype(np.uint64),
        np.ascontiguousarray(crops).view("<u8").astype(np.uint64),
        thumbnails.reshape(-1, SIDE, SIDE),
    )
    showing = looks.showing(np.arange(len(table)))
    near = [pd.DataFrame({"left": [], "right": []}, dtype=int)]
    for start in range(0, len(showing), CHUNK):
        pairs = candidates(looks, showing[start : start + CHUNK], showing[: start + CHUNK], DISTANCE)
        pairs = pairs[pairs["left"] > pairs["right"]].sort_values(["left", "distance"], kind="stable")
        pairs = pairs.groupby("left").head(NEAREST)
        near.append(pairs.loc[correlations(looks, pairs) >= CORRELATION, ["left", "right"]])
    ends = pd.concat(near).to_numpy(int).T
    graph = coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(len(table), len(table)))
    return [int(number) for number in connected_components(graph, directed=False)[1]]


@dataclass(frozen=True)
class Pick:
    """Which of the scored photographs are shown, in which order.

    Attributes:
        least: those with this score or a higher one alone.
        top: so many of what is left, the highest score first; groups, where there are groups.
        grouped: what looks alike stands together, numbered in `group`, the highest score first and `best`.
    """

    best_first: bool = False
    top: int | None = None
    least: float | None = None
    grouped: bool = False

    def __call__(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows without their fingerprints: each as soon as it is known, unless others may come before it."""
        blocks: Iterable[list[Row]] = _grouped(list(rows)) if self.grouped else ([row] for row in rows)
        kept: Iterator[list[Row]] = ([row for row in block if self._reaches(row)] for block in blocks)
        if self.best_first or self.top is not None:
            kept = iter(sorted(filter(None, kept), key=lambda block: _rank(block[0]))[: self.top])
        return ({key: row[key] for key in row if key != "fingerprint"} for block in kept for row in block)

    def _reaches(self, row: Row) -> bool:
        return self.least is None or (row["score"] is not None and row["score"] >= self.least)


def _rank(row: Row) -> tuple[bool, float]:
    """The highest score first, those without one last."""
    return row["score"] is None, -(row["score"] or 0)


def _grouped(rows: list[Row]) -> list[list[Row]]:
    """Rows that look alike together, at the place of their first; numbered where there are two or more."""
    blocks: dict[int, list[Row]] = defaultdict(list)
    for number, row in zip(groups([row["fingerprint"] for row in rows]) if rows else (), rows, strict=True):
        blocks[number].append(row)
    several = 0
    for block in blocks.values():
        block.sort(key=_rank)
        several += len(block) > 1
        for place, row in enumerate(block):
            row |= {"group": several if len(block) > 1 else None, "best": place == 0}
    typer.echo(f"Groups of photographs that look alike: {several}", err=True)
    return list(blocks.values())


class Copies:
    """Copies the best of each group, and what is in none, into a folder, over nothing that is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failed = False

    def made(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, once what is the best has been copied."""
        from calm.io import atomic_file

        for row in rows:
            source = Path(row["file"])
            target = self.folder / source.name
            try:
                if row["best"] and not target.exists():
                    with atomic_file(target) as part:
                        shutil.copy2(source, part)
                elif row["best"] and not filecmp.cmp(source, target, shallow=False):
                    raise ValueError(f"{target} holds something else: {source} was not copied")
            except (OSError, ValueError) as error:
                tell(str(error))
                self.failed = True
            yield row
