"""What each stage trains, to the bit, on the tiny model; and that killing a stage changes nothing."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from calm.attributes import LEVELS
from calm.attributes.taxonomy import taxonomy
from calm.io import sha256_file
from calm.layout import Layout
from calm.model import build
from calm.model.build import ADAPTER, TRAINED, Assembly, load_config
from calm.params import Params
from calm.training import finetune as finetune_stage
from calm.training import pretrain as pretrain_stage
from calm.training.finetune import finetune
from calm.training.pretrain import held_apart, pretrain, state_table
from tests import tiny

State = dict[str, torch.Tensor]


def snapshot(model: torch.nn.Module) -> State:
    """Weights by the names they have without an adapter, and the adapter's own."""
    return {name.replace(".base_layer", ""): value.clone() for name, value in model.state_dict().items()}


def watch(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """Snapshots of the model a stage has put together: before training, and when it is saved."""
    states: list[State] = []

    def spy(module: Any, name: str, before: bool) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if before:
                states.append(snapshot(next(a.model if isinstance(a, Assembly) else a for a in args[1:])))
                return original(*args, **kwargs)
            found = original(*args, **kwargs)
            states.append(snapshot(found.model))
            return found

        monkeypatch.setattr(module, name, wrapped)

    spy(pretrain_stage, "assemble", before=False)
    spy(pretrain_stage, "save_trained", before=True)
    spy(finetune_stage, "assemble_from", before=False)
    spy(finetune_stage, "save_trained", before=True)
    spy(finetune_stage, "save_complete", before=True)
    return states


def changed(states: list[State]) -> set[str]:
    start, end = states
    assert start.keys() <= end.keys()
    return {name for name in start if not torch.equal(start[name], end[name])}


def pretrain_both(params: Params, layout: Layout) -> None:
    for run in pretrain_stage.RUNS:
        pretrain(run, params, layout)


def test_self_supervision_trains_the_q_formers_and_their_heads_alone(
    tiny_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = watch(monkeypatch)
    pretrain("attributes", tiny_world.params(), tiny_world.layout)
    found = changed(states)
    own = ("mfam.levels.", "mfam.text_to_contrast.", "mfam.temperature", "mfam.prototypes", "mfam.words")
    assert all(name.startswith(own) for name in found), found
    for level in LEVELS:
        for part in ("queries", "qformer.", "to_language.weight", "to_contrast.weight"):
            assert any(name.startswith(f"mfam.levels.{level}.{part}") for name in found), (level, part)
    saved = load_file(tiny_world.layout.pretrained("attributes") / TRAINED)
    assert found <= saved.keys() and all(name.startswith(own) for name in saved)


def test_alignment_trains_the_fully_connected_layers_alone(tiny_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    states = watch(monkeypatch)
    pretrain("alignment", tiny_world.params(), tiny_world.layout)
    layers = ("thematic", *(f"content.{source}" for source in tiny.CONTENT))
    trained = {f"mfam.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    usual = {"mfam.content_mean", "mfam.content_deviation"}
    assert changed(states) == trained | usual
    saved = set(load_file(tiny_world.layout.pretrained("alignment") / TRAINED))
    assert saved == trained | usual | {"mfam.class_words"}


@pytest.mark.parametrize("run", ["comments", "scores"])
def test_fine_tuning_trains_mfam_and_adapter_and_scores_their_head(
    trained_world: Any, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    params, layout = trained_world.params(), trained_world.layout
    states = watch(monkeypatch)
    finetune(run, params, layout)
    found = changed(states)
    mfam = ("mfam.levels.", "mfam.thematic.", "mfam.content.")
    own = (*mfam, *(("score_head.",) if run == "scores" else ()))
    assert all(name.startswith(own) for name in found), found
    assert not any("contrast" in name for name in found)
    assert {"mfam.thematic.weight", "mfam.levels.low.to_language.weight"} <= found
    assert ("score_head.language.weight" in found) == (run == "scores")
    assert any("lora_B" in name and value.any() for name, value in states[1].items())


@pytest.mark.parametrize("kind", ["frozen", "trained"])
def test_frozen_q_formers_recognise_what_they_did_before(
    trained_world: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with monkeypatch.context() as patched:
        states = watch(patched)
        finetune("scores", trained_world.params(finetune__q_formers=kind), trained_world.layout)
    looking = {name for name in changed(states) if name.startswith("mfam.levels.") and "to_language" not in name}
    assert bool(looking) == (kind == "trained")
    assert not any("contrast" in name for name in looking)


def test_self_supervision_learns_how_sure_it_may_be_and_fine_tuning_keeps_it(trained_world: Any) -> None:
    layout = trained_world.layout
    learnt = load_config(layout.pretrained("attributes")).recognition
    assert len(learnt["log_priors"]) == len(load_config(layout.pretrained("attributes")).attribute_states)
    assert learnt["slope"] > 0
    assert load_config(layout.finetuned("comments")).recognition == learnt


def test_photographs_are_held_out_in_whole_groups() -> None:
    groups = ["a", "a", "b", "b", "c", "d"]
    rows = pd.DataFrame({"dataset": "d", "item_id": [f"p{i}" for i in range(6)], "group": groups})
    group_of = dict(zip(rows["item_id"], groups, strict=True))
    for seed in range(5):
        learnt, out = held_apart(rows, 0.3, seed)
        assert sorted([*learnt, *out]) == [("d", f"p{i}") for i in range(6)] and len(out) >= 2
        assert not {group_of[item] for _, item in learnt} & {group_of[item] for _, item in out}
    with pytest.raises(ValueError, match="near-duplicates of one another"):
        held_apart(rows.assign(group="a"), 0.3, 0)


def test_full_tuning_trains_the_language_model(trained_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    states = watch(monkeypatch)
    finetune("comments", trained_world.params(finetune__tuning={"kind": "full"}), trained_world.layout)
    tuned = {name for name in changed(states) if name.startswith("language_model.")}
    assert tuned and not any(name.startswith("vision_tower.") for name in changed(states))
    saved = load_file(trained_world.layout.finetuned("comments") / TRAINED)
    assert tuned <= saved.keys() | {"language_model.lm_head.weight"}  # tied to the embedding
    assert not (trained_world.layout.finetuned("comments") / ADAPTER).exists()


def test_what_was_tuned_on_comments_is_where_scores_start(trained_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    params, layout = trained_world.params(), trained_world.layout
    states = watch(monkeypatch)
    finetune("comments", params, layout)
    finetune("scores", params, layout)
    after_comments, before_scores = states[1], states[2]
    assert all(torch.equal(after_comments[name], value) for name, value in before_scores.items())
    adapter = load_file(layout.finetuned("comments") / ADAPTER / "adapter_model.safetensors")
    assert any(name.endswith("lora_B.weight") and value.any() for name, value in adapter.items())


# One layer before a frozen language model of random weights can do little.
@pytest.mark.parametrize("run, share", [("alignment", 0.95), ("comments", 0.7)])
def test_a_handful_of_samples_can_be_learned_by_heart(trained_world: Any, run: str, share: float) -> None:
    options = {**tiny.RUN, "steps": 40, "batch_size": 6, "warmup": 0.03, "weight_decay": 0.0, "max_grad_norm": 1.0}
    section, stage = ("finetune", finetune) if run == "comments" else ("pretrain", pretrain)
    stage(run, trained_world.params(**{f"{section}__{run}": options}), trained_world.layout)
    losses = pd.read_csv(trained_world.layout.curve(f"{section}-{run}"))["loss"]
    assert losses.iloc[-5:].mean() < share * losses.iloc[:3].mean()


def test_curves_hold_every_loss_of_every_step(trained_world: Any) -> None:
    curve = pd.read_csv(trained_world.layout.curve("pretrain-attributes"))
    assert curve["step"].tolist() == list(range(tiny.RUN["steps"]))
    assert {"loss", "language", "learning_rate", "gradient_norm"} <= set(curve.columns)
    assert curve[["loss", "gradient_norm"]].notna().all(axis=None)


def test_training_rows_alone_are_learned(tiny_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    original = pretrain_stage.Photographs.__getitem__

    def read(self: Any, key: tuple[str, str]) -> Any:
        seen.add(key[1])
        return original(self, key)

    monkeypatch.setattr(pretrain_stage.Photographs, "__getitem__", read)
    params = tiny_world.params()
    pretrain_both(params, tiny_world.layout)
    for run in finetune_stage.RUNS:
        finetune(run, params, tiny_world.layout)
    assert seen == {f"p{number}" for number in range(tiny.PICTURES)} - set(tiny.TEST)


def test_the_same_params_give_the_same_bytes_and_features_need_not_be_kept(
    tiny_world: Any, trained_template: Any
) -> None:
    hashes = []
    pretrain_both(tiny_world.params(), tiny_world.layout)
    for world in (tiny_world, trained_template):
        files = [world.layout.pretrained(run) / TRAINED for run in pretrain_stage.RUNS]
        hashes.append([sha256_file(path) for path in [*files, world.layout.curve("pretrain-attributes")]])
    assert hashes[0] == hashes[1]
    kept = load_file(tiny_world.layout.pretrained("alignment") / TRAINED)
    pretrain("alignment", tiny_world.params(runtime__keep_features=False), tiny_world.layout)
    fresh = load_file(tiny_world.layout.pretrained("alignment") / TRAINED)
    for name, value in kept.items():
        torch.testing.assert_close(fresh[name], value, rtol=1e-2, atol=1e-3)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", [0, 5])  # at every one: test_resume.py
def test_a_stage_killed_at_a_step_ends_with_the_same_bytes(
    trained_world: Any, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    params, layout = trained_world.params(), trained_world.layout
    outputs = [layout.pretrained("attributes") / TRAINED, layout.curve("pretrain-attributes")]
    expected = [sha256_file(path) for path in outputs]
    for path in outputs:
        path.unlink()
    original = pretrain_stage.AttributeObjective.losses

    def losses(self: Any, at: int, *rest: Any) -> Any:
        if at == step:
            raise Killed
        return original(self, at, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(pretrain_stage.AttributeObjective, "losses", losses)
        with pytest.raises(Killed):
            pretrain("attributes", params, layout)
    assert not any(path.exists() for path in outputs)
    pretrain("attributes", params, layout)
    assert [sha256_file(path) for path in outputs] == expected
    assert not layout.state("pretrain-attributes").exists()


KILLED_WHILE_TUNING = """
import os, pickle, signal, sys
import torch
torch.set_num_threads(1)
from calm.layout import Layout
from calm.training import finetune
from pathlib import Path
params = pickle.loads(bytes.fromhex(sys.argv[2]))
original = finetune.InstructionObjective.losses
def losses(self, step, *rest):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, step, *rest)
finetune.InstructionObjective.losses = losses
finetune.finetune("scores", params, Layout(Path(sys.argv[1])))
"""


def test_a_process_that_is_killed_ends_with_the_same_weights_after_all(
    trained_world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    params, layout = trained_world.params(), trained_world.layout
    weights = sorted(layout.finetuned("scores").rglob("*.safetensors"))
    expected = [sha256_file(path) for path in weights]
    for path in weights:
        path.unlink()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED_WHILE_TUNING), str(layout.root), pickle.dumps(params).hex()],
        cwd=tiny.REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not any(path.exists() for path in weights)
    capsys.readouterr()
    finetune("scores", params, layout)
    assert "finetune scores: resumed at step 4" in capsys.readouterr().err
    assert [sha256_file(path) for path in weights] == expected


def test_unknown_runs_are_named(tiny_world: Any) -> None:
    with pytest.raises(ValueError, match="no pre-training run 'scores'; there are: attributes, alignment"):
        pretrain("scores", tiny_world.params(), tiny_world.layout)
    with pytest.raises(ValueError, match="no fine-tuning run 'alignment'; there are: comments, scores"):
        finetune("alignment", tiny_world.params(), tiny_world.layout)


def test_stages_without_their_inputs_say_what_to_run(tiny_world: Any) -> None:
    with pytest.raises(build.CheckpointError, match="dvc repro"):
        finetune("comments", tiny_world.params(), tiny_world.layout)
    tiny_world.layout.texts.unlink()
    with pytest.raises(FileNotFoundError, match="dvc repro"):
        pretrain("attributes", tiny_world.params(), tiny_world.layout)


def test_parts_of_another_shape_are_refused(trained_world: Any) -> None:
    layout = trained_world.layout
    pretrain("alignment", trained_world.params(mfam__thematic={"grid": 1, "content": []}), layout)
    with pytest.raises(build.CheckpointError, match=r"mfam.\w+.*does not fit the model"):
        finetune("comments", trained_world.params(), layout)


def test_prototypes_are_the_mean_guidance_texts_of_each_state(trained_world: Any) -> None:
    from calm.data.store.tables import GUIDANCE
    from calm.io import read_table
    from calm.model.pretrained import load_text_encoder
    from calm.training.losses import TextBank

    params, layout = trained_world.params(), trained_world.layout
    prototypes = load_file(layout.pretrained("attributes") / TRAINED)["mfam.prototypes"]
    table = state_table(taxonomy())
    assert len(prototypes) == len(table)
    bank, encoder = TextBank(read_table(layout.texts, GUIDANCE)), load_text_encoder(params.parts.text)
    for row in (0, len(table) // 2, len(table) - 1):
        expected = encoder.embed(bank.texts(*table[row][1:])).mean(0)
        torch.testing.assert_close(prototypes[row], expected, rtol=1e-4, atol=1e-4)
