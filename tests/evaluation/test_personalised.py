"""Personal scores: the protocol on the drawn world, and each method against a second way of computing it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from calm.data.store import tables
from calm.evaluation.base import EvaluationError
from calm.evaluation.stage import evaluate
from calm.evaluation.statistics.metrics import Bootstrap
from calm.evaluation.statistics.ridge import ALPHAS, Scaling, ridge
from calm.evaluation.tasks.personalised import METHODS, PERSONAL, measure, per_rater
from calm.io import read_table
from tests.evaluation.calm_world import DATASET, TEST_RATERS, FakeCalm, World, with_settings

RNG = np.random.default_rng(11)


def judged(world: World, model: FakeCalm, **settings: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    params = with_settings(world.params, "personalised", **settings)
    evaluate("personalised", params, world.layout, model=model)
    folder = world.layout.result("personalised")
    return json.loads((folder / "metrics.json").read_text("utf-8")), pd.read_parquet(folder / "predictions.parquet")


def test_features_that_tell_make_a_score_personal_and_noise_does_not(world: World) -> None:
    known, _ = judged(world, world.oracle())
    assert known["raters"] == TEST_RATERS and known["labels"] == "synthetic"
    found = known["at_10"]
    assert found["generic"]["srcc"]["value"] == pytest.approx(found["crowd"]["srcc"]["value"])
    assert found["ridge"]["srcc"]["value"] > found["generic"]["srcc"]["value"]
    noise, _ = judged(world, world.blind())
    assert abs(noise["at_10"]["generic"]["srcc"]["value"]) < 0.3 < found["generic"]["srcc"]["value"]


def test_every_figure_is_the_definitions(world: World) -> None:
    """SRCC per rater and draw, mean over draws, mean over raters: written again from the protocol."""
    found, rows = judged(world, world.oracle(), support=[5, 10])
    for shots in (5, 10):
        for method in METHODS:
            of_raters, errors = [], []
            for rater in sorted(set(rows["rater_id"])):
                figures, misses = [], []
                for draw in range(2):
                    one = rows[(rows["rater_id"] == rater) & (rows["shots"] == shots) & (rows["draw"] == draw)]
                    if one[method].isna().any() or one.empty:
                        continue
                    misses.append(np.abs(one[method] - one["rating"]).mean())
                    if one[method].nunique() > 1 and one["rating"].nunique() > 1:
                        ranks = one[[method, "rating"]].rank(method="average")
                        figures.append(np.corrcoef(ranks[method], ranks["rating"])[0, 1])
                of_raters += [np.mean(figures)] if figures else []
                errors += [np.mean(misses)] if misses else []
            figure = found[f"at_{shots}"][method]
            assert figure["srcc"]["value"] == (pytest.approx(np.mean(of_raters), abs=1e-6) if of_raters else None)
            assert figure["srcc"]["n"] == len(of_raters)
            assert figure["mae"]["value"] == (pytest.approx(np.mean(errors), abs=1e-6) if errors else None)


def test_what_is_shown_is_what_the_split_has_drawn_and_is_never_ranked(world: World) -> None:
    _, rows = judged(world, world.oracle())
    sets = read_table(world.layout.support_sets / f"{DATASET}.parquet", tables.SUPPORT)
    sets = sets[(sets["shots"] == 10) & (sets["draw"] < 2)]
    keys = ["rater_id", "draw", "item_id"]
    assert set(map(tuple, rows[keys].to_numpy())) == set(map(tuple, sets.loc[sets["part"] == "query", keys].to_numpy()))
    shown = sets[sets["part"] == "support"]
    assert shown.groupby(["rater_id", "draw"]).size().eq(10).all()
    groups = {(r, d): {i.split("#")[0] for i in one["item_id"]} for (r, d), one in shown.groupby(["rater_id", "draw"])}
    asked = zip(rows["rater_id"], rows["draw"], rows["item_id"], strict=True)
    assert not any(item.split("#")[0] in groups[rater, draw] for rater, draw, item in asked)


def test_a_rater_with_too_few_ratings_is_left_out_and_counted(world: World) -> None:
    file = world.layout.support_sets / f"{DATASET}.parquet"
    sets = read_table(file, tables.SUPPORT)
    first = sorted(sets["rater_id"].unique())[0]
    from calm.io import write_table

    write_table(file, sets[(sets["rater_id"] != first) | (sets["shots"] == 5)], tables.SUPPORT)
    found, _ = judged(world, world.oracle(), support=[5, 10])
    assert found["at_5"]["left_out"] == 0 and found["at_5"]["raters"] == TEST_RATERS
    assert found["at_10"]["left_out"] == 1 and found["at_10"]["raters"] == TEST_RATERS - 1


def test_shots_that_were_never_drawn_are_an_error_that_names_the_key(world: World) -> None:
    with pytest.raises(EvaluationError, match=r"has 99 test ratings.*data\.split\.raters"):
        judged(world, world.oracle(), support=[99], in_context=[])


def test_methods_that_are_switched_off_are_null_with_the_reason(world: World) -> None:
    found, rows = judged(world, world.oracle(), in_context=[])
    assert rows["in_context"].isna().all()
    assert "in_context" in found["at_10"]["in_context"]["srcc"]["reason"]
    assert found["at_100"]["generic"]["srcc"]["value"] is None and "100" in found["at_100"]["generic"]["srcc"]["reason"]
    assert found["at_10"]["rater_mean"]["srcc"]["value"] is None and found["at_10"]["rater_mean"]["mae"]["value"] > 0


def test_in_context_scores_are_those_of_every_rater_and_draw_for_the_support_that_params_name(world: World) -> None:
    found, rows = judged(world, world.oracle(), support=[5, 10], in_context=[5])
    assert rows.loc[rows["shots"] == 5, "in_context"].notna().all()
    assert rows.loc[rows["shots"] == 10, "in_context"].isna().all()
    assert found["at_5"]["gain"]["in_context"]["over_generic"]["n"] == TEST_RATERS
    assert "in_context" in found["at_10"]["in_context"]["srcc"]["reason"]


def test_training_raters_and_test_raters_are_different_people(world: World) -> None:
    told = read_table(world.layout.rater_splits / f"{DATASET}.parquet", tables.RATER)
    _, rows = judged(world, world.oracle())
    assert set(rows["rater_id"]) == set(told.loc[told["split"] == "test", "rater_id"])


def test_gains_are_paired_over_raters_and_have_a_p() -> None:
    rows = []
    for rater in range(30):
        taste = RNG.normal(size=20)
        for draw in range(2):
            noise = RNG.normal(size=(2, 20))
            rows.append(
                pd.DataFrame({"dataset": "d", "rater_id": str(rater), "shots": 10, "draw": draw, "rating": taste})
                .assign(**dict.fromkeys(METHODS, np.nan))
                .assign(generic=taste + 2 * noise[0], ridge=taste + 0.3 * noise[1], in_context=taste + 2 * noise[1])
            )
    found = measure(per_rater(pd.concat(rows)), 31, Bootstrap(300, 0.95, 0))
    assert found["left_out"] == 1
    gain = found["gain"]["ridge"]["over_generic"]
    assert gain["low"] > 0 and gain["p"] == pytest.approx(2 / 301, abs=1e-6)
    assert found["gain"]["in_context"]["over_generic"]["p"] > 0.01
    assert set(found["gain"]) == set(PERSONAL)


def test_ridge_learns_a_taste_from_ten_ratings_and_stays_put_without_one() -> None:
    features = RNG.normal(size=(60, 4)) / 2
    taste = features @ np.array([3.0, 0, 0, 0])
    learnt = ridge(features[:10], taste[:10], features[10:])
    assert np.corrcoef(learnt, taste[10:])[0, 1] > 0.9
    assert np.ptp(ridge(features[:10], np.full(10, 2.0), features[10:])) < 1e-9


def test_ridge_is_the_best_of_leave_one_out_by_hand() -> None:
    x, y, asked = RNG.normal(size=(10, 3)), RNG.normal(size=10), RNG.normal(size=(5, 3))

    def fitted(rows: np.ndarray, alpha: float) -> tuple[np.ndarray, float]:
        centre, level = x[rows].mean(0), y[rows].mean()
        a = x[rows] - centre
        weights = np.linalg.solve(a.T @ a + alpha * np.eye(3), a.T @ (y[rows] - level))
        return weights, level - centre @ weights

    def left_out(alpha: float) -> float:
        errors = []
        for row in range(10):
            weights, bias = fitted(np.delete(np.arange(10), row), alpha)
            errors.append((x[row] @ weights + bias - y[row]) ** 2)
        return float(np.mean(errors))

    weights, bias = fitted(np.arange(10), min(ALPHAS, key=left_out))
    np.testing.assert_allclose(ridge(x, y, asked), asked @ weights + bias, rtol=1e-6)


def test_features_that_are_the_same_for_all_photographs_are_an_error() -> None:
    with pytest.raises(ValueError, match="same for all photographs"):
        Scaling.fit(np.ones((5, 3)))
