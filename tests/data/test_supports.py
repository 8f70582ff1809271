"""Held-out raters are unknown to training, and their support and query sets are drawn by seed and written down."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from calm.data.settings import RaterSplitParams
from calm.data.splits import draw_support, single_ratings, split_items, split_raters, support_and_query

SETTINGS = RaterSplitParams(test_share=0.25, shots=[3, 8], draws=4, least_queries=5)


def tables_of(
    official: bool, raters: int = 12, photographs: int = 60
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Ratings, items and splits: of an official split the last third of the photographs is the test set, rated by the
    last quarter of the raters; otherwise everyone rates a random half."""
    rng = np.random.default_rng(0)
    names = [f"p{number:02d}" for number in range(photographs)]
    held_out = names[-photographs // 3 :]
    split = ["test" if name in held_out else "train" for name in names] if official else None
    groups = [f"g{number // 2:02d}" for number in range(photographs)]
    items = pd.DataFrame(
        {"item_id": names, "split": split, "split_rule": split, "group": groups, "synthetic_edits": None}
    )
    rows = []
    for number in range(raters):
        pool = names if not official else held_out if number >= raters * 3 // 4 else names[: -photographs // 3]
        chosen = rng.choice(pool, len(pool) if official else len(pool) // 2, replace=False)
        rows += [(f"r{number:02d}", name) for name in chosen]
    ratings = pd.DataFrame(rows, columns=["rater_id", "item_id"])
    ratings = pd.concat([ratings, pd.DataFrame({"rater_id": None, "item_id": names})], ignore_index=True)
    return ratings, items, split_items(items, "d", 5, 0.5)


@pytest.mark.parametrize("official", [True, False])
def test_raters_and_photographs_of_the_test_are_new_to_training(official: bool) -> None:
    ratings, items, splits = tables_of(official)
    single = single_ratings(ratings, items, splits)
    raters = split_raters(single, "d", 5, SETTINGS.test_share)
    assert raters["split"].value_counts().to_dict() == {"train": 9, "test": 3}
    assert raters["rule"].str.startswith("official split" if official else "seeded raters, seed 5").all()
    drawn = draw_support(single, raters, 5, SETTINGS)
    assert set(drawn["rater_id"]) == set(raters.loc[raters["split"] == "test", "rater_id"])
    assert set(drawn["item_id"]) <= set(splits.loc[splits["split"] == "test", "item_id"])
    group = items.set_index("item_id")["group"]
    for (_, shots, _), one in drawn.groupby(["rater_id", "shots", "draw"]):
        shown, asked = (set(one.loc[one["part"] == part, "item_id"]) for part in ("support", "query"))
        assert len(shown) == shots
        assert len(asked) >= SETTINGS.least_queries
        assert not set(group[list(shown)]) & set(group[list(asked)])
    assert drawn.groupby(["rater_id", "shots"])["draw"].nunique().eq(4).all()


def test_draws_depend_on_the_seed_and_on_nothing_else() -> None:
    ratings, items, splits = tables_of(official=False)

    def made(seed: int, order: np.ndarray | slice = slice(None)) -> pd.DataFrame:
        single = single_ratings(ratings.iloc[order], items, splits)
        return draw_support(single, split_raters(single, "d", seed, 0.25), seed, SETTINGS)

    shuffled = np.random.default_rng(1).permutation(len(ratings))
    pd.testing.assert_frame_equal(made(5, shuffled), made(5))
    assert not made(6).equals(made(5))


def test_more_draws_leave_the_earlier_ones_as_they_are() -> None:
    ratings, items, splits = tables_of(official=True)
    single = single_ratings(ratings, items, splits)
    raters = split_raters(single, "d", 5, 0.25)
    few = draw_support(single, raters, 5, SETTINGS)
    more = draw_support(single, raters, 5, SETTINGS.model_copy(update={"draws": 9, "shots": [3, 5, 8]}))
    kept = more[(more["draw"] < 4) & (more["shots"] != 5)].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, few)


def test_a_rater_with_too_few_photographs_is_left_out() -> None:
    rng = np.random.default_rng(0)
    assert support_and_query(["a", "b", "c", "d"], 3, 2, rng) is None
    assert support_and_query(["a", "a", "b", "b"], 2, 2, rng) is not None
    assert support_and_query(["a"] * 9, 3, 1, rng) is None  # one group: nothing of it may be ranked
    use = support_and_query(["a", "a", "a", "b", "b", "c"], 2, 1, rng)
    assert use is not None
    assert sorted(use.tolist()).count(1) == 2


def test_sets_without_single_raters_have_empty_tables() -> None:
    ratings, items, splits = tables_of(official=True, raters=0)
    single = single_ratings(ratings, items, splits)
    raters = split_raters(single, "d", 5, 0.25)
    assert raters.empty
    assert draw_support(single, raters, 5, SETTINGS).empty
