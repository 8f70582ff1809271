"""Splits are official or by seeded whole groups, whatever order the items come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from calm.data.prepare import prepare
from calm.data.sources import fetch
from calm.data.splits import held_out_groups, split, split_items
from calm.data.store import tables
from calm.layout import Layout
from calm.params import Params


def items_of(sizes: dict[str, int], views: int = 0, **columns: Any) -> pd.DataFrame:
    """Photographs by group, each with some synthetic views."""
    rows = [
        {"item_id": f"{group}-{number}{suffix}", "group": group, "synthetic_edits": "[]" if suffix else None}
        for group, size in sizes.items()
        for number in range(size)
        for suffix in ("", *(f"#v{view:02d}" for view in range(views)))
    ]
    return pd.DataFrame(rows).assign(**{"split": None, "split_rule": None, **columns})


def test_about_the_wanted_share_of_photographs_is_held_out_by_whole_groups() -> None:
    sizes = {"campus": 25, "flat": 15, "flowers": 9, "tomatoes": 4, **{f"single{number}": 1 for number in range(42)}}
    for seed in range(20):
        items = items_of(sizes, views=2)
        frame = split_items(items, "photos", seed, 0.27).merge(items.drop(columns="split"), on="item_id")
        assert (frame.groupby("group")["split"].nunique() == 1).all()
        test = frame[(frame["split"] == "test") & frame["synthetic_edits"].isna()]
        assert abs(len(test) - 0.27 * 95) <= 1
        assert test["group"].nunique() >= 8
        assert set(frame["rule"]) == {f"seeded groups, seed {seed}"}


def test_the_split_depends_on_the_seed_and_on_nothing_else() -> None:
    items = items_of({f"g{number}": 1 + number % 3 for number in range(30)}, views=1)
    first = split_items(items, "d", 3, 0.3)
    rng = np.random.default_rng(0)
    for _ in range(5):
        shuffled = items.iloc[rng.permutation(len(items))]
        pd.testing.assert_frame_equal(split_items(shuffled, "d", 3, 0.3), first)
    assert not split_items(items, "d", 4, 0.3)["split"].equals(first["split"])


@pytest.mark.parametrize("sizes", [{"a": 1}, {"a": 3, "b": 3}, {"a": 1, "b": 9}, {"a": 5, "b": 5, "c": 5}])
def test_small_sets_keep_training_photographs_and_hold_some_out_if_they_can(sizes: dict[str, int]) -> None:
    chosen = held_out_groups(items_of(sizes), "d", 0, 0.27)
    assert len(chosen) < len(sizes)
    assert bool(chosen) == (len(sizes) > 1)


def test_nothing_is_held_out_where_nothing_is_wanted() -> None:
    assert held_out_groups(items_of({"a": 1, "b": 1}), "d", 0, 0.0) == set()


def test_an_official_split_is_kept_with_its_rule() -> None:
    items = items_of({"a": 2}, split=["test", "train"], split_rule="list of the authors")
    assert split_items(items, "d", 0, 0.5)[["split", "rule"]].to_numpy().tolist() == [
        ["test", "list of the authors"],
        ["train", "list of the authors"],
    ]


def test_a_partial_or_unknown_official_split_is_an_error() -> None:
    with pytest.raises(ValueError, match="item 'a-1' has no official split"):
        split_items(items_of({"a": 2}, split=["test", None]), "d", 0, 0.5)
    with pytest.raises(ValueError, match=r"unknown splits \['dev'\]"):
        split_items(items_of({"a": 2}, split=["test", "dev"]), "d", 0, 0.5)


def test_the_stage_writes_one_table_per_dataset(scored_params: Params, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    fetch("local", scored_params, layout)
    prepare("local", scored_params, layout)
    split(scored_params, layout)
    frame = tables.splits(layout, "local")
    assert len(frame) == 12
    assert set(frame["split"]) == {"train", "test"}
    assert tables.raters(layout, "local").to_dict("records") == [
        {"dataset": "local", "rater_id": "ann", "split": "test", "rule": "seeded raters, seed 17"},
        {"dataset": "local", "rater_id": "ben", "split": "train", "rule": "seeded raters, seed 17"},
    ]
    assert tables.support_sets(layout, "local").empty
