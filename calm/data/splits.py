"""Stage `split`: which items are for training and which are held out, and the rule that says so.

For sets with single persons' ratings also the support and query sets of personalised scoring (PIAA). A test rater is
nobody whose ratings are trained on: photographs and persons of the test are both new to the model. Of each, `shots`
rated test photographs are the support set, seen with this rater's ratings, and the others are to be ranked. Whoever
compares two methods reads the same draws from these files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calm.data.settings import RaterSplitParams
from calm.data.store import tables
from calm.data.store.tables import RATER, SPLIT, SUPPORT
from calm.io import atomic_dir, write_table
from calm.layout import Layout
from calm.params import Params
from calm.seeds import derive, stream

SPLITS = ("train", "validation", "test")
RATING_COLUMNS = ("item_id", "rater_id")
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


def single_ratings(ratings: pd.DataFrame, items: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Who rated what: columns rater_id, item_id, group, split, published (an official split), ordered by both ids."""
    told = ratings.loc[ratings["rater_id"].notna(), ["rater_id", "item_id"]]
    about = items[["item_id", "group"]].assign(published=items["split"].notna().to_numpy())
    joined = told.merge(about, on="item_id").merge(splits[["item_id", "split"]], on="item_id")
    return joined.drop_duplicates(["rater_id", "item_id"]).sort_values(["rater_id", "item_id"], ignore_index=True)


def split_raters(single: pd.DataFrame, dataset: str, seed: int, test_share: float) -> pd.DataFrame:
    """RATER rows, ordered by id.

    Where the split of the photographs is official, raters of test photographs alone are held out: in FLICKR-AES, the
    test photographs are those that the held-out raters rated. Otherwise a share of the raters is drawn by seed.
    """
    if single.empty:
        return pd.DataFrame({name: pd.Series([], dtype=object) for name in RATER.names})
    if single["published"].all():
        trained = set(single.loc[single["split"] != "test", "rater_id"])
        test, rule = set(single["rater_id"]) - trained, "official split: rated test photographs alone"
    else:
        everyone = sorted(single["rater_id"].unique())
        order = sorted(everyone, key=lambda rater: (derive(seed, "raters", dataset, rater), rater))
        test, rule = set(order[: round(test_share * len(order))]), f"seeded raters, seed {seed}"
    raters = pd.DataFrame({"dataset": dataset, "rater_id": sorted(single["rater_id"].unique())})
    return raters.assign(split=["test" if rater in test else "train" for rater in raters["rater_id"]], rule=rule)


def draw_support(single: pd.DataFrame, raters: pd.DataFrame, seed: int, settings: RaterSplitParams) -> pd.DataFrame:
    """SUPPORT rows of every test rater, ordered by rater, shots, draw, item.

    A rater with too few rated test photographs for a number of shots and `least_queries` more has no rows for it.
    """
    held_out = raters.loc[raters["split"] == "test", ["dataset", "rater_id"]]
    rated = single[single["split"] == "test"].merge(held_out, on="rater_id")
    parts = [pd.DataFrame({name: pd.Series([], dtype=object) for name in SUPPORT.names})]
    for (dataset, rater), own in rated.groupby(["dataset", "rater_id"], sort=True):
        items, groups = own["item_id"].to_numpy(object), own["group"].tolist()
        for shots in sorted(settings.shots):
            for draw in range(settings.draws):
                rng = stream(seed, "support", str(dataset), str(rater), shots, draw)
                drawn = support_and_query(groups, shots, settings.least_queries, rng)
                if drawn is None:
                    continue
                rows = {"dataset": dataset, "rater_id": rater, "shots": shots, "draw": draw, "item_id": items}
                part = np.select([drawn == 1, drawn == 0], ["support", "query"], "")
                parts.append(pd.DataFrame({**rows, "part": part})[part != ""])
    frame = pd.concat(parts, ignore_index=True)
    return frame.astype({"shots": "int32", "draw": "int32"})


def support_and_query(
    groups: Sequence[str], shots: int, least_queries: int, rng: np.random.Generator
) -> NDArray[np.int64] | None:
    """For each rated photograph: 1 = shown, 0 = to be ranked, -1 = neither; None where too few would be left to rank.

    Groups are shown one after the other in drawn order, so that views of few photographs are shown and views of all
    others are left to rank; of a group that is shown, nothing is ranked. Where each photograph is its own group, this
    is a plain draw of photographs.
    """
    codes = pd.factorize(pd.Series(groups))[0]
    order = rng.permutation(len(codes))
    drawn = pd.factorize(codes[order])[1]  # groups in the order of their first photograph
    place = np.empty(len(drawn), dtype=np.int64)
    place[drawn] = np.arange(len(drawn))
    shown = order[np.argsort(place[codes[order]], kind="stable")][:shots]
    use = np.where(np.isin(codes, codes[shown]), -1, 0)
    use[shown] = 1
    if len(shown) < shots or (use == 0).sum() < least_queries:
        return None
    return use
