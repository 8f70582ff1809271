"""What each stage trains, to the bit, on the tiny model; and that killing a stage changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
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
from calm.training import finetune as finetune_stage
from calm.training import pretrain as pretrain_stage
from calm.training.finetune import RUNS, finetune
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


@dataclass(frozen=True)
class Again:
    """All stages, run once more: their checkout, each one's model before and after, photographs that were read."""

    layout: Layout
    states: dict[str, list[State]]
    read: set[str]


@pytest.fixture(scope="module")
def again(tiny_template: Any, tmp_path_factory: pytest.TempPathFactory) -> Again:
    layout = Layout(tmp_path_factory.mktemp("again") / "checkout")
    shutil.copytree(tiny_template.layout.root, layout.root)
    params, read = tiny_template.params(), set()
    states: dict[str, list[State]] = {}
    original = pretrain_stage.Photographs.__getitem__

    def spied(self: Any, key: tuple[str, str]) -> Any:
        read.add(key[1])
        return original(self, key)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pretrain_stage.Photographs, "__getitem__", spied)
        seen = watch(patched)
        for stage, run in (*((pretrain, run) for run in pretrain_stage.RUNS), *((finetune, run) for run in RUNS)):
            stage(run, params, layout)
            states[run] = seen[:]
            seen.clear()
    torch.set_num_threads(threads)
    return Again(layout, states, read)


def test_self_supervision_trains_the_q_formers_and_their_heads_alone(again: Again) -> None:
    found = changed(again.states["attributes"])
    own = ("mfam.levels.", "mfam.text_to_contrast.", "mfam.temperature", "mfam.prototypes", "mfam.words")
    assert all(name.startswith(own) for name in found), found
    for level in LEVELS:
        for part in ("queries", "qformer.", "to_language.weight", "to_contrast.weight"):
            assert any(name.startswith(f"mfam.levels.{level}.{part}") for name in found), (level, part)
    saved = load_file(again.layout.pretrained("attributes") / TRAINED)
    assert found <= saved.keys() and all(name.startswith(own) for name in saved)


def test_alignment_trains_the_fully_connected_layers_alone(again: Again) -> None:
    layers = ("thematic", *(f"content.{source}" for source in tiny.CONTENT))
    trained = {f"mfam.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    usual = {"mfam.content_mean", "mfam.content_deviation"}
    assert changed(again.states["alignment"]) == trained | usual
    saved = set(load_file(again.layout.pretrained("alignment") / TRAINED))
    assert saved == trained | usual | {"mfam.class_words"}


@pytest.mark.parametrize("run", RUNS)
def test_fine_tuning_trains_mfam_and_adapter_and_scores_their_head(again: Again, run: str) -> None:
    found = changed(again.states[run])
    mfam = ("mfam.levels.", "mfam.thematic.", "mfam.content.")
    own = (*mfam, *(("score_head.",) if run == "scores" else ()))
    assert all(name.startswith(own) for name in found), found
    assert not any("contrast" in name for name in found)
    assert {"mfam.thematic.weight", "mfam.levels.low.to_language.weight"} <= found
    assert not looking(found)
    assert ("score_head.language.weight" in found) == (run == "scores")
    assert any("lora_B" in name and value.any() for name, value in again.states[run][1].items())


def looking(names: set[str]) -> set[str]:
    """What the Q-Formers recognise with."""
    return {name for name in names if name.startswith("mfam.levels.") and "to_language" not in name}


def test_q_formers_that_are_not_frozen_learn_to_recognise(trained_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    states = watch(monkeypatch)
    finetune("scores", trained_world.params(finetune__q_formers="trained"), trained_world.layout)
    found = looking(changed(states))
    assert found and not any("contrast" in name for name in found)


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


def test_what_was_tuned_on_comments_is_where_scores_start(again: Again) -> None:
    after_comments, before_scores = again.states["comments"][1], again.states["scores"][0]
    assert all(torch.equal(after_comments[name], value) for name, value in before_scores.items())
    adapter = load_file(again.layout.finetuned("comments") / ADAPTER / "adapter_model.safetensors")
    assert any(name.endswith("lora_B.weight") and value.any() for name, value in adapter.items())


# One layer before a frozen language model of random weights can do little.
@pytest.mark.parametrize("run, share", [("alignment", 0.95), ("comments", 0.7)])
def test_a_handful_of_samples_can_be_learned_by_heart(trained_world: Any, run: str, share: float) -> None:
    options = {**tiny.RUN, "steps": 24, "batch_size": 6, "warmup": 0.03, "weight_decay": 0.0, "max_grad_norm": 1.0}
    section, stage = ("finetune", finetune) if run == "comments" else ("pretrain", pretrain)
    stage(run, trained_world.params(**{f"{section}__{run}": options}), trained_world.layout)
    losses = pd.read_csv(trained_world.layout.curve(f"{section}-{run}"))["loss"]
    assert losses.iloc[-5:].mean() < share * losses.iloc[:3].mean()


def test_curves_hold_every_loss_of_every_step(trained_world: Any) -> None:
    curve = pd.read_csv(trained_world.layout.curve("pretrain-attributes"))
    assert curve["step"].tolist() == list(range(tiny.RUN["steps"]))
    assert {"loss", "language", "learning_rate", "gradient_norm"} <= set(curve.columns)
    assert curve[["loss", "gradient_norm"]].notna().all(axis=None)


def test_training_rows_alone_are_learned(again: Again) -> None:
    assert again.read == {f"p{number}" for number in range(tiny.PICTURES)} - set(tiny.TEST)


def test_the_same_params_give_the_same_bytes(again: Again, trained_template: Any) -> None:
    first, second = (
        {
            path.relative_to(root): sha256_file(path)
            for path in root.rglob("*")
            if path.suffix in (".safetensors", ".csv")
        }
        for root in (again.layout.root, trained_template.layout.root)
    )
    assert len(first) > 8 and first == second


def test_features_need_not_be_kept(trained_world: Any) -> None:
    file = trained_world.layout.pretrained("alignment") / TRAINED
    kept = load_file(file)
    pretrain("alignment", trained_world.params(runtime__keep_features=False), trained_world.layout)
    fresh = load_file(file)
    for name, value in kept.items():
        torch.testing.assert_close(fresh[name], value, rtol=1e-2, atol=1e-3)


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_stage_killed_again_and_again_ends_with_the_same_bytes(
    trained_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step: test_resume.py; by a signal: tests/distributed/test_launchers.py."""
    params, layout = trained_world.params(), trained_world.layout
    outputs = [layout.pretrained("attributes") / TRAINED, layout.curve("pretrain-attributes")]
    expected = [sha256_file(path) for path in outputs]
    for path in outputs:
        path.unlink()
    original = pretrain_stage.AttributeObjective.losses
    for last in (0, 5):

        def losses(self: Any, step: int, *rest: Any, last: int = last) -> Any:
            if step == last:
                raise Killed
            return original(self, step, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(pretrain_stage.AttributeObjective, "losses", losses)
            with pytest.raises(Killed):
                pretrain("attributes", params, layout)
        assert not any(path.exists() for path in outputs)
    pretrain("attributes", params, layout)
    assert [sha256_file(path) for path in outputs] == expected
    assert not layout.state("pretrain-attributes").exists()


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
