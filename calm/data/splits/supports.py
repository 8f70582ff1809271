"""Which raters are held out, and the support and query sets of personalised scoring (PIAA).

A test rater is nobody whose ratings are trained on: photographs and persons of the test are both new to the model. Of
each, `shots` rated test photographs are the support set, seen with this rater's ratings, and the others are to be
ranked. Whoever compares two methods reads the same draws from these files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calm.data.settings import RaterSplitParams
from calm.data.store.schema import RATER, SUPPORT
from calm.seeds import derive, stream

RATING_COLUMNS = ("item_id", "rater_id")


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
