"""Readers of the tables in `calm.data.schema`, each checked against its schema."""

from __future__ import annotations

import pandas as pd

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


def instructions(layout: Layout, use: str) -> pd.DataFrame:
    """Prompts and answers of one use: generic, comments or scores (INSTRUCTION)."""
    return read_table(layout.instructions / f"{use}.parquet", schema.INSTRUCTION)
