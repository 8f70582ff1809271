"""A drawn world with a result of every task, an ablation and learning curves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from calm.evaluation.base import Bench, rated
from calm.evaluation.stage import evaluate, settings
from calm.evaluation.statistics import captions
from calm.evaluation.tasks import commenting
from calm.evaluation.tasks.scoring import PREDICTIONS, predict
from calm.io import write_json, write_table
from calm.layout import Layout
from tests.evaluation.calm_world import World, build_world, with_settings
from tests.page.conftest import browser

__all__ = ["browser"]  # a fixture


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = build_world(tmp_path_factory.mktemp("evaluated"), photos=8, views=2)
    world.params = with_settings(world.params, "personalised", support=[5], in_context=[])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commenting, "tokenised", lambda given, expected: captions.Tokenised(given, expected))
        patch.setattr(commenting, "scored", _without_java)
        for task in world.params.evaluation.tasks:
            evaluate(task, world.params, world.layout, model=world.oracle())
    bench = Bench("scoring", world.params, world.layout, world.blind(), settings("scoring", world.params))
    ablated = predict(bench, rated(bench, "test"))
    write_table(world.layout.ablation("no_selfsupervision") / "predictions/scoring.parquet", ablated, PREDICTIONS)
    world.layout.curves.mkdir(parents=True)
    curve = pd.DataFrame({"step": range(5), "loss": [3, 2.5, np.nan, 2, 1.9], "learning_rate": 1e-3})
    curve.to_csv(world.layout.curves / "finetune-scores.csv", index=False)
    write_json(world.layout.lists / "leakage.json", {"test_items": 18, "leaked_after": 0, "phash_distance": 6})
    return world


def _without_java(given: list[str], expected: list[list[str]], **settings: Any) -> captions.CaptionScores:
    """Caption figures by hand: the report shows them, it does not compute them."""
    corpus = dict.fromkeys(commenting.METRICS, 0.5)
    draws = {name: np.full(200, 0.5) for name in corpus}
    per_photo = {name: np.full(len(given), 0.5) for name in ("rouge_l", "cider")}
    return captions.CaptionScores(corpus, corpus, draws, draws, per_photo)


@pytest.fixture
def world(evaluated: World, tmp_path: Path) -> World:
    shutil.copytree(evaluated.layout.root, tmp_path, dirs_exist_ok=True)
    return World(Layout(tmp_path), evaluated.params, evaluated.edits, evaluated.scores, evaluated.comments)
