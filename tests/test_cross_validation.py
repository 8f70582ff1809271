"""Folds share nothing that they must not; every figure of a cross-validation is its definition's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from calm.evaluation.statistics.metrics import SRCC, Bootstrap, mean_over_seeds
from calm.evaluation.statistics.ridge import RIDGE
from calm.experiments.cross_validation import CrossValidationError, _found, _ridge, folds, measure
from calm.training.settings import CrossValidation, Recipe

COUNT = 40
RECIPE = Recipe(self_supervision="none", reads=["thematic"], steps=0)


def settings(by: str = "photograph", count: int = 5) -> CrossValidation:
    recipes = {"full": RECIPE, "other": RECIPE}
    return CrossValidation(photographs="all", by=by, folds=count, seeds=[1, 2], recipes=recipes)  # type: ignore[arg-type]


def photographs() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"dataset": "d", "item_id": f"{n:02}", "group": f"g{n // 4}", "origin": "human", "score": rng.uniform(1, 10)}
        for n in range(COUNT)
    ]
    return pd.DataFrame(rows)


def scored() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    parts = []
    for recipe, noise in (("full", 1.0), ("other", 3.0)):
        for seed in (1, 2):
            rows = photographs()
            rows["regression"] = rows["score"] + rng.normal(scale=noise, size=COUNT)
            rows["expectation"] = rows["text"] = np.nan
            rows[RIDGE] = rows["score"] + rng.normal(size=COUNT)
            parts.append(rows.assign(seed=seed, fold=0, recipe=recipe))
    return pd.concat(parts).sample(frac=1, random_state=0)  # the order of rows must not matter


@pytest.mark.parametrize("by", ["photograph", "group"])
def test_every_row_is_held_out_once_and_no_fold_shares_what_it_must_not(by: str) -> None:
    rows = photographs()
    drawn = list(folds(rows, settings(by), seed=3))
    assert sorted(np.concatenate([held_out for _, held_out in drawn])) == list(range(COUNT))
    column = "item_id" if by == "photograph" else "group"
    for known, held_out in drawn:
        assert not set(rows[column].iloc[known]) & set(rows[column].iloc[held_out])
        assert len(known) + len(held_out) == COUNT
    others = list(folds(rows, settings(by), seed=4))
    assert any(list(a[1]) != list(b[1]) for a, b in zip(drawn, others, strict=True))


def test_more_folds_than_groups_are_an_error() -> None:
    with pytest.raises(CrossValidationError, match="11 folds of 10 rated groups"):
        next(folds(photographs(), settings("group", 11), seed=3))


def test_figures_are_means_over_seeds_beside_the_ridge_regression_and_the_first_recipe() -> None:
    rows = scored()
    found = measure(rows, settings(), Bootstrap(200, 0.95, 0))["publics"]["d"]
    assert found["items"] == COUNT and found["groups"] == COUNT // 4 and found["labels"] == "human"
    single = {
        (recipe, seed, column): spearmanr(part[column], part["score"])[0]
        for (recipe, seed), part in rows.groupby(["recipe", "seed"])
        for column in ("regression", RIDGE)
    }
    for recipe in ("full", "other"):
        figures = found["recipes"][recipe]
        assert set(figures) == {"regression"}  # the others were never read
        mean = np.mean([single[recipe, seed, "regression"] for seed in (1, 2)])
        assert figures["regression"]["srcc"]["value"] == pytest.approx(mean, abs=1e-6)
        ridge = np.mean([single["full", seed, RIDGE] for seed in (1, 2)])
        assert figures["regression"]["over_ridge"]["value"] == pytest.approx(mean - ridge, abs=1e-6)
        added, over = (figures["regression"][key]["value"] for key in ("gain_with_ridge", "with_ridge_over_ridge"))
        assert over - added == pytest.approx(mean - ridge, abs=2e-6)
    difference = found["compared"]["full_minus_other"]
    assert difference["value"] == pytest.approx(
        np.mean([single["full", s, "regression"] - single["other", s, "regression"] for s in (1, 2)]), abs=1e-6
    )
    assert difference["low"] > 0 and difference["p"] < 0.05


def test_each_public_has_figures_and_a_ridge_regression_of_its_own() -> None:
    one = scored()
    other = one.assign(dataset="e", regression=-one["regression"])
    both = measure(pd.concat([one, other]), settings(), Bootstrap(200, 0.95, 0))["publics"]
    assert both["d"] == measure(one, settings(), Bootstrap(200, 0.95, 0))["publics"]["d"]
    assert both["e"]["recipes"]["full"]["regression"]["srcc"]["value"] < 0 < both["e"][RIDGE]["srcc"]["value"]
    rng = np.random.default_rng(3)
    rows = pd.concat([photographs(), photographs().assign(dataset="e")], ignore_index=True)
    features = rng.normal(size=(2 * COUNT, 3))
    rows["score"] = features[:, 0] * np.where(rows["dataset"] == "d", 1, -1)  # what one likes the other does not
    known, held_out = next(folds(rows, settings(), seed=3))
    found = _ridge(features, rows, known, held_out)
    assert np.abs(found - rows["score"].iloc[held_out]).max() < 0.1


def test_the_mean_over_one_seed_is_that_seeds_figure() -> None:
    rng = np.random.default_rng(2)
    target, one = rng.normal(size=30), rng.normal(size=30)
    found = mean_over_seeds(SRCC, [one], target, range(30), Bootstrap(50, 0.9, 0))
    assert found.value == pytest.approx(spearmanr(one, target)[0])
    with pytest.raises(ValueError, match="1 runs cannot be compared with 2"):
        mean_over_seeds(SRCC, [one], target, range(30), Bootstrap(50, 0.9, 0), minus=[one, one])


class Counting:
    """A learner that says how often it was asked."""

    learnt = 0

    def fingerprint(self, recipe: Recipe, rows: pd.DataFrame, seed: int, label: str) -> str:
        return f"{seed}-{len(rows)}"

    def learn(self, recipe: Recipe, rows: pd.DataFrame, seed: int, label: str) -> None:
        self.learnt += 1

    def scores(self, rows: pd.DataFrame, *, language: bool) -> pd.DataFrame:
        return pd.DataFrame({"text": np.nan, "expectation": np.nan, "regression": np.arange(len(rows), dtype=float)})


def test_a_run_that_was_stopped_does_not_learn_again_what_it_had_found(tmp_path: Path) -> None:
    learner, rows = Counting(), photographs()
    asked = (learner, RECIPE, rows[:30], rows[30:], 1, "test", tmp_path / "state")
    first, again = (_found(*asked) for _ in range(2))  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(first, again)
    assert learner.learnt == 1 and first.index.tolist() == list(range(30, COUNT))
    _found(learner, RECIPE, rows[:20], rows[30:], 1, "test", tmp_path / "state")  # type: ignore[arg-type]
    assert learner.learnt == 2
