from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from calm.experiments import ablations
from calm.experiments.ablations import AblationError, ablate
from tests.evaluation.calm_world import World, build_world

NAME = "no_selfsupervision"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[World, list[Any]]:
    """A world whose training only notes what it was asked for, and whose model is the oracle."""
    world, calls = build_world(tmp_path, photos=5, views=2), []

    def train_from(start: Any, out: Path, params: Any, layout: Any, label: str) -> None:
        calls.append((start, label))
        out.mkdir(parents=True)

    def load_model(folder: Path, params: Any) -> Any:
        assert folder.is_dir()
        return world.oracle()

    module = types.ModuleType("calm.training.finetune")
    module.train_from = train_from  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "calm.training.finetune", module)
    monkeypatch.setattr(ablations, "load_model", load_model)
    return world, calls


def test_an_ablation_trains_from_its_start_and_keeps_scores_but_no_model(trained: tuple[World, list[Any]]) -> None:
    world, calls = trained
    start = world.layout.root / world.params.ablations[NAME].start
    start.mkdir(parents=True)
    ablate(NAME, world.params, world.layout)
    assert calls == [([start], f"ablate-{NAME}")]
    metrics = json.loads((world.layout.ablation(NAME) / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["start"] == world.params.ablations[NAME].start
    assert metrics["expectation"]["srcc"]["value"] == pytest.approx(1) and metrics["labels"] == "synthetic"
    assert len(pd.read_parquet(world.layout.ablation(NAME) / "predictions.parquet")) == metrics["items"] == 9
    assert not list((world.layout.root / ".state").iterdir())


def test_unknown_names_and_missing_starts_are_clear_errors(trained: tuple[World, list[Any]]) -> None:
    world, calls = trained
    with pytest.raises(AblationError, match="no entry 'no_sleep'"):
        ablate("no_sleep", world.params, world.layout)
    with pytest.raises(FileNotFoundError, match="models/pretrain/alignment does not exist"):
        ablate(NAME, world.params, world.layout)
    assert not calls
