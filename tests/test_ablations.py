from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from calm import experiments
from calm.evaluation.stage import evaluate
from calm.experiments import AblationError, ablate
from calm.layout import Layout
from calm.params import Params
from calm.report import tables
from calm.settings import ParamsError
from calm.training.settings import Ablation
from tests.evaluation.calm_world import World, build_world

NAME = "no_selfsupervision"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[World, list[Any]]:
    """A world whose training only notes what it was asked for, and whose model is the oracle."""
    world, calls = build_world(tmp_path, photos=5, views=2), []

    def train_from(start: Any, out: Path, params: Any, layout: Any, label: str) -> None:
        calls.append((start, label, params))
        out.mkdir(parents=True)

    def load_model(folder: Path, params: Any) -> Any:
        assert folder.is_dir()
        return world.oracle()

    module = types.ModuleType("calm.training.finetune")
    module.train_from = train_from  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "calm.training.finetune", module)
    monkeypatch.setattr(experiments, "load_model", load_model)
    return world, calls


def test_an_ablation_trains_from_its_start_and_keeps_scores_but_no_model(trained: tuple[World, list[Any]]) -> None:
    world, calls = trained
    start = world.layout.root / world.params.ablations[NAME].start
    start.mkdir(parents=True)
    ablate(NAME, world.params, world.layout)
    assert calls == [([start], f"ablate-{NAME}", world.params)]
    metrics = json.loads((world.layout.ablation(NAME) / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["start"] == world.params.ablations[NAME].start
    scoring = metrics["scoring"]
    assert scoring["expectation"]["srcc"]["value"] == pytest.approx(1) and scoring["labels"] == "synthetic"
    told = pd.read_parquet(world.layout.ablation(NAME) / "predictions/scoring.parquet")
    assert len(told) == scoring["items"] == 9
    assert not list((world.layout.root / ".state").iterdir())


def changing(world: World, **ablation: Any) -> Params:
    """The world's params with one ablation of both runs of pre-training."""
    (world.layout.root / "models/pretrain/attributes").mkdir(parents=True, exist_ok=True)
    other = Ablation(**({"start": "models/pretrain", "tasks": ["scoring", "suggesting"]} | ablation))
    return world.params.model_copy(update={"ablations": {"other": other}})


def test_what_an_ablation_changes_is_changed_for_its_training_alone(trained: tuple[World, list[Any]]) -> None:
    world, calls = trained
    change = {"finetune.q_formers": "trained", "mfam.words.states": 0}
    params = changing(world, change=change)
    ablate("other", params, world.layout)
    ((start, _, seen),) = calls
    assert [folder.name for folder in start] == ["attributes", "alignment"]
    assert (seen.finetune.q_formers, seen.mfam.words.states) == ("trained", 0)
    assert params.finetune.q_formers == "frozen"
    assert seen.finetune.comments == params.finetune.comments
    found = tables.ablations(params, changed_results(world, params))["other"]
    assert "no difference shown" in found.told and "finetune.q_formers: trained" in found.changed
    assert {row.figure for row in found.rows} >= {
        "SRCC, regression",
        "first suggestion: a real edit (state), as calm suggests",
    }


def changed_results(world: World, params: Params) -> Layout:
    """The full recipe's results beside the ablation's."""
    for task in params.ablations["other"].tasks:
        evaluate(task, params, world.layout, model=world.oracle())  # type: ignore[arg-type]
    return world.layout


@pytest.mark.parametrize(
    ("ablation", "said"),
    [
        ({"change": {"finetune.comments.stepps": 3}}, "'finetune.comments.stepps' is not a key"),
        ({"change": {"finetune.nothing.steps": 3}}, "'finetune.nothing.steps' is not a key"),
        ({"change": {"finetune.comments.steps": 0}}, "finetune.comments.steps"),
        ({"tasks": ["attributes"]}, "'attributes' has no figure of single photographs"),
    ],
)
def test_what_cannot_be_changed_or_compared_is_told(
    trained: tuple[World, list[Any]], ablation: dict[str, Any], said: str
) -> None:
    world, calls = trained
    with pytest.raises((AblationError, ParamsError), match=said):
        ablate("other", changing(world, **ablation), world.layout)
    assert not calls


def test_unknown_names_and_missing_starts_are_clear_errors(trained: tuple[World, list[Any]]) -> None:
    world, calls = trained
    with pytest.raises(AblationError, match="no entry 'no_sleep'"):
        ablate("no_sleep", world.params, world.layout)
    with pytest.raises(FileNotFoundError, match="models/pretrain/alignment does not exist"):
        ablate(NAME, world.params, world.layout)
    assert not calls
