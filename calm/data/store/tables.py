"""The tables in `calm.data.store.schema`: readers, each checked against its schema, and frames made from rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from calm.data.store import schema
from calm.io import read_arrow, read_table
from calm.layout import Layout

THUMBNAIL = (32, 32)  # of FINGERPRINT
ROLES = ("unlabelled", "generic", "comments", "scores", "raters")


def items(layout: Layout, dataset: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Every prepared item of a dataset (ITEM), or some of its columns."""
    return read_table(layout.prepared(dataset) / "items.parquet", schema.ITEM, columns)


def fingerprints(layout: Layout, dataset: str) -> Fingerprints:
    """What finds each item of a dataset again when it was cropped, in the order of `items` (FINGERPRINT)."""
    table = read_arrow(layout.prepared(dataset) / "fingerprints.parquet", schema.FINGERPRINT)
    crops, thumbnails = (_bytes(table.column(name)) for name in ("crops", "thumbnail"))
    return Fingerprints(
        table.column("item_id").to_pandas(), crops.view("<u8"), thumbnails.reshape(len(table), *THUMBNAIL)
    )


@dataclass(frozen=True)
class Fingerprints:
    """Of N items: ids, hashes of slightly cropped versions (N, 30), thumbnails (N, 32, 32) of grey levels."""

    item_ids: pd.Series
    crops: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]


def _bytes(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """(N, width) bytes of a column of fixed width, without a Python object for each."""
    width = column.type.byte_width
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * width :][: len(chunk) * width]
        for chunk in column.chunks
    ]
    return np.concatenate([np.zeros(0, np.uint8), *chunks]).reshape(-1, width)


def ratings(layout: Layout, dataset: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Every rating of a dataset (RATING), or some columns; rater_id is null for a crowd's mean."""
    return read_table(layout.prepared(dataset) / "ratings.parquet", schema.RATING, columns)


def comments(layout: Layout, dataset: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Every comment and caption of a dataset (COMMENT), or some columns."""
    return read_table(layout.prepared(dataset) / "comments.parquet", schema.COMMENT, columns)


def quarantine(layout: Layout, dataset: str) -> pd.DataFrame:
    """Photographs that could not be used, with the reason (QUARANTINE)."""
    return read_table(layout.prepared(dataset) / "quarantine.parquet", schema.QUARANTINE)


def splits(layout: Layout, dataset: str) -> pd.DataFrame:
    """The split of every item of a dataset and the rule that put it there (SPLIT)."""
    return read_table(layout.splits / f"{dataset}.parquet", schema.SPLIT)


def raters(layout: Layout, dataset: str) -> pd.DataFrame:
    """Every single rater of a dataset, for training or held out (RATER); no rows where there are none."""
    return read_table(layout.rater_splits / f"{dataset}.parquet", schema.RATER)


def support_sets(layout: Layout, dataset: str) -> pd.DataFrame:
    """For each test rater, what personalised scoring sees and what it ranks, draw by draw (SUPPORT)."""
    return read_table(layout.support_sets / f"{dataset}.parquet", schema.SUPPORT)


def role_list(layout: Layout, role: str) -> pd.DataFrame:
    """Items that may be used for a role, after the leakage filter, with their split (LIST)."""
    assert role in ROLES, role
    return read_table(layout.lists / f"{role}.parquet", schema.LIST)


def removed(layout: Layout) -> pd.DataFrame:
    """Training items that the leakage filter took out, per role, and why (REMOVED)."""
    return read_table(layout.lists / "removed.parquet", schema.REMOVED)


def instructions(layout: Layout, use: str) -> pd.DataFrame:
    """Prompts and answers of one use: generic, comments or scores (INSTRUCTION)."""
    return read_table(layout.instructions / f"{use}.parquet", schema.INSTRUCTION)


def rows_to_frame(rows: list[dict[str, Any]] | pd.DataFrame, schema: pa.Schema, **constant: str) -> pd.DataFrame:
    """A frame with exactly the columns of `schema`; columns that rows leave out are null.

    Raises:
        ValueError: a row has a column that the schema does not know.
    """
    frame = pd.DataFrame(rows) if len(rows) else pd.DataFrame({name: [] for name in schema.names}, dtype=object)
    frame = frame.assign(**constant)
    unknown = set(frame.columns) - set(schema.names)
    if unknown:
        raise ValueError(f"unknown columns {sorted(unknown)}")
    return frame.reindex(columns=schema.names).astype(object).where(lambda cells: cells.notna(), None)
