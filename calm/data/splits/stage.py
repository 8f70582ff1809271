"""Stage `split`: which items are for training and which are held out, and the rule that says so.

For sets with single persons' ratings also which raters are held out, and what personalised scoring sees of each.
"""

from __future__ import annotations

import pandas as pd

from calm.data.splits.supports import RATING_COLUMNS, draw_support, single_ratings, split_raters
from calm.data.store import tables
from calm.data.store.schema import RATER, SPLIT, SUPPORT
from calm.io import atomic_dir, write_table
from calm.layout import Layout
from calm.params import Params
from calm.seeds import derive

SPLITS = ("train", "validation", "test")
ITEM_COLUMNS = ("item_id", "split", "split_rule", "group", "synthetic_edits")


def split(params: Params, layout: Layout) -> None:
    """Write one table per dataset: its official split, or groups chosen by seed."""
    with atomic_dir(layout.splits) as folder:
        for dataset in sorted(params.data.datasets):
            items = tables.items(layout, dataset, ITEM_COLUMNS)
            frame = split_items(items, dataset, params.seed, params.data.split.test_share)
            write_table(folder / f"{dataset}.parquet", frame, SPLIT)
            single = single_ratings(tables.ratings(layout, dataset, RATING_COLUMNS), items, frame)
            raters = split_raters(single, dataset, params.seed, params.data.split.raters.test_share)
            write_table(folder / layout.rater_splits.name / f"{dataset}.parquet", raters, RATER)
            drawn = draw_support(single, raters, params.seed, params.data.split.raters)
            write_table(folder / layout.support_sets.name / f"{dataset}.parquet", drawn, SUPPORT)


def split_items(items: pd.DataFrame, dataset: str, seed: int, test_share: float) -> pd.DataFrame:
    """SPLIT rows of one dataset, ordered by item id, whatever the order of `items`.

    Raises:
        ValueError: only some items have an official split, or it is not one of train, validation, test.
    """
    published = items["split"].notna()
    if published.all():
        unknown = sorted(set(items["split"]) - set(SPLITS))
        if unknown:
            raise ValueError(f"dataset '{dataset}': unknown splits {unknown}; known are {', '.join(SPLITS)}")
        chosen, rule = items["split"], items["split_rule"].fillna("official split")
    elif published.any():
        first = items.loc[~published, "item_id"].min()
        raise ValueError(f"dataset '{dataset}': item '{first}' has no official split, others have one")
    else:
        test = held_out_groups(items, dataset, seed, test_share)
        chosen = items["group"].map(lambda group: "test" if group in test else "train")
        rule = pd.Series(f"seeded groups, seed {seed}", index=items.index)
    frame = pd.DataFrame({"dataset": dataset, "item_id": items["item_id"], "split": chosen, "rule": rule})
    return frame.sort_values("item_id", ignore_index=True)


def held_out_groups(items: pd.DataFrame, dataset: str, seed: int, share: float) -> set[str]:
    """Groups held out for test: about `share` of the photographs, by whole groups, in an order drawn by seed.

    A group is taken if it still fits. One with more than half of the wanted photographs stays in training, so that a
    single large group never is the test set; synthetic views are not counted.
    """
    photographs = items[items["synthetic_edits"].isna()]
    sizes = photographs.groupby("group").size()
    if len(sizes) < 2 or share == 0:
        return set()
    wanted = share * len(photographs)
    largest = max(wanted / 2, float(sizes.min()))
    wanted = max(wanted, float(sizes.min()))
    order = sorted(sizes.index, key=lambda group: (derive(seed, "split", dataset, group), group))
    chosen: set[str] = set()
    count = 0
    for group in order:
        size = int(sizes[group])
        if size <= largest and count + size <= wanted + 0.5 and len(chosen) < len(sizes) - 1:
            chosen.add(group)
            count += size
    return chosen
