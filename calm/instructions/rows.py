"""Rows of INSTRUCTION, and the labels of listed photographs that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from calm.data.store import tables
from calm.instructions.wording import Message
from calm.layout import Layout

Row = dict[str, Any]  # of INSTRUCTION
Label = Mapping[Any, Any]  # a row of another table, with the split of its item


def instruction(task: str, label: Label, messages: list[Message], answer: str) -> Row:
    """What a model is asked about one photograph and what it should say; `label` says which photograph, and whence."""
    return {
        "task": task,
        "dataset": label["dataset"],
        "item_ids": [label["item_id"]],
        "split": label["split"],
        "messages": messages,
        "answer": answer,
        "weight": 1.0,
        "origin": label["origin"],
    }


def labels(
    layout: Layout,
    role: str,
    read: Callable[[Layout, str], pd.DataFrame],
    wanted: Callable[[pd.DataFrame], pd.Series],
) -> Iterator[pd.DataFrame]:
    """Of each dataset of a role: the wanted rows of a table, item by item of the role's list, with the item's split."""
    for dataset, listed in tables.role_list(layout, role).groupby("dataset", sort=True):
        table = read(layout, str(dataset))
        yield listed[["item_id", "split"]].merge(table[wanted(table)], on="item_id")
