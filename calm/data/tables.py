"""The tables in `calm.data.schema`: readers, each checked against its schema, and frames made from rows."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa

from calm.data import schema
from calm.io import read_table
from calm.layout import Layout

ROLES = ("unlabelled", "generic", "comments", "scores", "raters")


def items(layout: Layout, dataset: str) -> pd.DataFrame:
    """Every prepared item of a dataset (ITEM)."""
    return read_table(layout.prepared(dataset) / "items.parquet", schema.ITEM)


def ratings(layout: Layout, dataset: str) -> pd.DataFrame:
    """Every rating of a dataset (RATING); rater_id is null for a crowd's mean."""
    return read_table(layout.prepared(dataset) / "ratings.parquet", schema.RATING)


def comments(layout: Layout, dataset: str) -> pd.DataFrame:
    """Every comment and caption of a dataset (COMMENT)."""
    return read_table(layout.prepared(dataset) / "comments.parquet", schema.COMMENT)


def quarantine(layout: Layout, dataset: str) -> pd.DataFrame:
    """Photographs that could not be used, with the reason (QUARANTINE)."""
    return read_table(layout.prepared(dataset) / "quarantine.parquet", schema.QUARANTINE)


def splits(layout: Layout, dataset: str) -> pd.DataFrame:
    """The split of every item of a dataset and the rule that put it there (SPLIT)."""
    return read_table(layout.splits / f"{dataset}.parquet", schema.SPLIT)


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
