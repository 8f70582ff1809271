"""S begins without the language model: who is trained, on what loss, and that the curve is one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from calm.io import sha256_file
from calm.model.build import ADAPTER, TRAINED, Assembly
from calm.params import Params
from calm.settings import ParamsError
from calm.training import finetune as finetune_stage
from calm.training.features import Features, Photographs
from calm.training.finetune import assemble_from, finetune, learnt_rows, open_for_training
from calm.training.loop.engine import Run
from calm.training.scores import VisualScoreObjective, begin_visual_scores
from calm.training.settings import VisualScores
from tests import tiny

STEPS = 5
OPTIONS = VisualScores(
    steps=STEPS,
    batch_size=4,
    learning_rate=1e-2,
    warmup=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    checkpoint_every=2,
)
KEYS = [(tiny.DATASET, f"p{number}") for number in range(4)]
ROWS = pd.DataFrame({"dataset": tiny.DATASET, "item_ids": [[item] for _, item in KEYS], "spoilt": None})
ROWS["score"] = [1.0, 4.0, 7.0, 10.0]


def objective(assembly: Assembly, world: Any, options: VisualScores = OPTIONS) -> VisualScoreObjective:
    features = Features(assembly, Photographs(world.layout, [tiny.DATASET]), keep=True)
    return VisualScoreObjective(assembly, features, {}, ROWS, options, 17, "test")


@torch.no_grad()
def test_the_loss_is_the_squared_error_of_the_visual_part_in_half_scales(
    assembly: Assembly, tiny_template: Any
) -> None:
    found = objective(assembly, tiny_template)
    losses = found.losses(0)
    model = assembly.model
    (seen,) = model.score_head.look(model.mfam(found.features(KEYS))).unbind(1)
    expected = (seen - torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])).square().mean()
    assert set(losses) == {"loss", "regression"}
    torch.testing.assert_close(losses["loss"], expected)


def test_mfam_and_visual_part_are_trained_the_adapter_goes_along(trained_world: Any, tmp_path: Path) -> None:
    params = trained_world.params(finetune__scores__visual__steps=STEPS)
    layout, start = trained_world.layout, trained_world.layout.finetuned("comments")
    assembly = assemble_from([start], params)
    open_for_training(assembly, head=("visual",), q_formers="trained")
    before = {name: value.clone() for name, value in assembly.model.state_dict().items()}
    curve = begin_visual_scores(
        assembly, learnt_rows("scores", layout, "test"), start, tmp_path / "out", params, layout, "test"
    )
    saved = load_file(tmp_path / "out" / TRAINED)
    changed = {name for name, value in assembly.model.state_dict().items() if not torch.equal(before[name], value)}
    own = ("mfam.levels.", "mfam.thematic.", "mfam.content.", "score_head.visual.")
    assert changed and all(name.startswith(own) for name in changed)
    assert any(name.startswith("score_head.visual.") for name in changed)
    assert changed <= saved.keys()
    assert load_file(start / TRAINED).keys() <= saved.keys()
    weights = "adapter_model.safetensors"
    assert sha256_file(tmp_path / "out" / ADAPTER / weights) == sha256_file(start / ADAPTER / weights)
    assert len(curve) == STEPS
    assert not layout.state("test-visual").exists()
    speed = json.loads(layout.state("test-visual.throughput.json").read_text(encoding="utf-8"))
    assert speed["samples_per_second"] > 0 and speed["mfu"] > 0
    assert speed["tokens_per_second"] == 0  # the language model is not asked


def test_the_visual_phase_goes_on_with_the_balance_alone_that_it_began_with(
    trained_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def begun(objective: VisualScoreObjective, run: Run) -> None:
        found.append(run.fingerprint)
        raise Stopped

    monkeypatch.setattr("calm.training.scores.train", begun)
    layout, start, found = trained_world.layout, trained_world.layout.finetuned("comments"), []
    rows = learnt_rows("scores", layout, "test")
    for balance in (0.75, 0.5, 0.5):
        params = trained_world.params(finetune__scores__visual__steps=STEPS, finetune__scores__balance=balance)
        assembly = assemble_from([start], params)
        with pytest.raises(Stopped):
            begin_visual_scores(assembly, rows, start, tmp_path / "out", params, layout, "test")
    assert found[0] != found[1] == found[2]


def test_both_phases_are_one_curve_and_the_same_bytes_again(trained_world: Any) -> None:
    params = trained_world.params(finetune__scores__visual__steps=STEPS)
    layout, hashes = trained_world.layout, []
    for _ in range(2):
        shutil.rmtree(layout.finetuned("scores"))
        finetune("scores", params, layout)
        weights = sorted(layout.finetuned("scores").rglob("*.safetensors"))
        hashes.append([sha256_file(path) for path in [*weights, layout.curve("finetune-scores")]])
    assert hashes[0] == hashes[1]
    curve = pd.read_csv(layout.curve("finetune-scores"))
    assert curve["step"].tolist() == list(range(STEPS + tiny.RUN["steps"]))
    assert curve["phase"].tolist() == ["visual"] * STEPS + ["language"] * tiny.RUN["steps"]
    assert curve["language"].notna().tolist() == [False] * STEPS + [True] * tiny.RUN["steps"]
    assert curve[["loss", "regression"]].notna().all(axis=None)


@pytest.mark.parametrize("steps", [0, STEPS])
def test_beside_the_language_model_the_visual_part_stays_where_it_had_a_phase_of_its_own(
    trained_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    params = trained_world.params(finetune__scores__visual__steps=steps)
    begun: dict[str, torch.Tensor] = {}
    assemble_again = finetune_stage.assemble_from

    def spied(start: Sequence[Path], params: Params, publics: Any) -> Assembly:
        assembly = assemble_again(start, params, publics)
        begun.update({name: value.clone() for name, value in assembly.model.score_head.state_dict().items()})
        return assembly

    monkeypatch.setattr(finetune_stage, "assemble_from", spied)  # the last one is with the language model
    finetune_stage.tune_scores(trained_world.layout.finetuned("comments"), tmp_path, None, params, trained_world.layout)
    saved = load_file(next(tmp_path.glob("*.safetensors")))
    stayed = {name for name, value in begun.items() if torch.equal(value, saved[f"score_head.{name}"])}
    visual = {name for name in begun if name.startswith("visual.")}
    assert visual and stayed == (visual if steps else set())


def test_a_visual_phase_without_a_visual_part_is_refused(tiny_template: Any) -> None:
    with pytest.raises(ParamsError, match=r"finetune.scores.visual.steps \(5\).*mfam.score_width = 0"):
        tiny_template.params(mfam__score_width=0, finetune__scores__visual__steps=STEPS)
