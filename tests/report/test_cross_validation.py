"""What the page says of cross-validated recipes is held against the first of them, as params.yaml has them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from calm.evaluation.statistics.metrics import Bootstrap
from calm.evaluation.statistics.ridge import RIDGE_LABEL
from calm.experiments.cross_validation import measure
from calm.io import write_json
from calm.layout import Layout
from calm.report import tables
from calm.report.tables import _cross_validated
from calm.training.settings import CrossValidation, Recipe

RECIPE = Recipe(self_supervision="none", reads=["thematic"], steps=0)
NAMES = ("whole", "a_part_less")  # not in the order of the alphabet, by which a file of metrics sorts its keys


@pytest.fixture
def metrics(tmp_path: Path) -> dict[str, Any]:
    """As read back from its file."""
    rng, parts = np.random.default_rng(0), []
    for recipe, noise in zip(NAMES, (0.5, 5.0), strict=True):
        items = pd.DataFrame({"dataset": "d", "item_id": [f"{n:02}" for n in range(40)], "origin": "human"})
        score = np.arange(40) / 5 + 1.5
        regression = score + rng.normal(scale=noise, size=40)
        parts.append(
            items.assign(group=items["item_id"], score=score, seed=1, fold=0, recipe=recipe, text=np.nan).assign(
                expectation=np.nan,
                regression=regression,
                ridge=score + rng.normal(size=40),
            )
        )
    recipes = dict.fromkeys(NAMES, RECIPE)
    settings = CrossValidation(photographs="all", by="photograph", folds=2, seeds=[1], recipes=recipes)
    file = Layout(tmp_path).cross_validation("photographs") / "metrics.json"
    file.parent.mkdir(parents=True)
    write_json(file, measure(pd.concat(parts), settings, Bootstrap(200, 0.95, 0)))
    return tables.read_cross_validation(Layout(tmp_path), "photographs")


def test_every_part_is_held_against_the_first_recipe(metrics: dict[str, Any]) -> None:
    (part,) = _cross_validated("photographs", metrics)
    assert part.part == "photographs, d: whole instead of a part less"
    assert float(part.with_it) > float(part.without) and part.verdict == "better with it"
    assert part.difference.startswith("+")


def test_the_table_has_the_ridge_regression_and_then_the_recipes_in_their_order(
    metrics: dict[str, Any], tmp_path: Path
) -> None:
    params: Any = SimpleNamespace(cross_validations={"photographs": None})
    found = tables.cross_validations(params, Layout(tmp_path))["photographs, d"]
    names = [RIDGE_LABEL, "whole, regression", "a part less, regression"]
    assert [row[0] for row in found.rows] == names
    assert {len(row) for row in found.rows} == {len(found.header)}
    told = metrics["publics"]["d"]["recipes"]["whole"]["regression"]["over_ridge"]
    assert found.rows[1][3].startswith(f"{told['value']:+.3f} ({told['low']:+.3f} to ")
    assert "40 photographs (human scores), 2 folds that share no photograph, seeds 1." == found.about
