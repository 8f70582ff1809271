"""Stage `finetune`: MFAM and language model (paper), first on comments (C), then on scores (S)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from calm.data.store import tables
from calm.io import atomic_dir, sha256_file
from calm.layout import Layout
from calm.model.attention import use_plain_attention
from calm.model.build import (
    TRAINED,
    Assembly,
    add_lora,
    assemble_named,
    load_adapter,
    load_config,
    load_trained,
    save_adapter,
    save_complete,
    save_trained,
)
from calm.model.settings import LoRATuning
from calm.params import Params
from calm.training.features import Features
from calm.training.loop.engine import Run, finish, train, write_curve
from calm.training.loop.processes import launch
from calm.training.scores import balanced, begin_visual_scores, learnt_publics
from calm.training.settings import FinetuneScores
from calm.training.tuning import InstructionObjective

if TYPE_CHECKING:
    from peft import PeftModel

RUNS = ("comments", "scores")
RELEASE = "release"  # label of the training that holds no score back
CONTRASTIVE = ("text_to_contrast", "to_contrast", "temperature")  # no part of what the language model reads


def finetune(run: str, params: Params, layout: Layout) -> None:
    """Train one process of fine-tuning and write its checkpoint and curve.

    Comments start from both pre-training runs, scores from the comments. The last one is written as a whole model.

    Raises:
        ValueError: there is no such run.
    """
    if run not in RUNS:
        raise ValueError(f"there is no fine-tuning run '{run}'; there are: {', '.join(RUNS)}")
    out, curve_file = layout.finetuned(run), layout.curve(f"finetune-{run}")
    if run == "comments":
        start = [layout.pretrained("attributes"), layout.pretrained("alignment")]
        tune(run, start, out, curve_file, params, layout)
    else:
        tune_scores(layout.finetuned("comments"), out, curve_file, params, layout)


def train_from(start: Sequence[Path], out: Path, params: Params, layout: Layout, label: str) -> None:
    """Both processes from another start, for an ablation; `out` becomes a whole model."""
    with TemporaryDirectory(prefix="calm-") as temporary:
        comments = Path(temporary) / "comments"
        tune("comments", start, comments, None, params, layout, label)
        tune_scores(comments, out, None, params, layout, label)


def train_released(out: Path, params: Params, layout: Layout) -> None:
    """S once more, on the held-out scores too; `out` becomes a whole model, whose scores nothing is left to test with.

    Comments are learnt from the same photographs as ever.
    """
    tune_scores(layout.finetuned("comments"), out, None, params, layout, RELEASE)


def tune_scores(
    start: Path, out: Path, curve_file: Path | None, params: Params, layout: Layout, label: str = "finetune"
) -> None:
    """S: first its visual phase, where params ask for one, then with the language model."""
    if not params.finetune.scores.visual.steps:
        tune("scores", [start], out, curve_file, params, layout, label)
        return
    with TemporaryDirectory(prefix="calm-") as temporary:
        begun = Path(temporary) / "begun"
        rows = learnt_rows("scores", layout, label)
        assembly = assemble_from([start], params, learnt_publics(rows, params.data.roles.scores))
        open_for_training(assembly, head=("visual",), q_formers=params.finetune.q_formers)
        first = begin_visual_scores(assembly, rows, start, begun, params, layout, label)
        del assembly
        tune("scores", [begun], out, curve_file, params, layout, label, first)


def learnt_rows(run: str, layout: Layout, label: str) -> pd.DataFrame:
    """Instructions that a run learns from: those of training photographs, and for a release every score."""
    rows = tables.instructions(layout, run)
    learnt = rows["split"] == "train"
    return rows[learnt | rows["score"].notna()] if label == RELEASE else rows[learnt]


def tune(
    run: str,
    start: Sequence[Path],
    out: Path,
    curve_file: Path | None,
    params: Params,
    layout: Layout,
    label: str = "finetune",
    before: pd.DataFrame | None = None,
) -> None:
    """Train one process from the checkpoints `start` into `out`.

    Args:
        before: curve of a phase that led to `start`; the curve that is written begins with it.
    """
    # For a job file, which is read from another working directory.
    folders = {"start": [str(folder.resolve()) for folder in start], "out": str(out.resolve())}
    launch("finetune", {"run": run, "label": label, **folders}, params, layout, layout.state(f"{label}-{run}"))
    options = params.finetune.comments if run == "comments" else params.finetune.scores
    rows = learnt_rows(run, layout, label)
    publics: list[dict[str, Any]] = []
    head: tuple[str, ...] = ()
    if isinstance(options, FinetuneScores):
        publics, head = learnt_publics(rows, params.data.roles.scores), head_beside_language(options)
        rows = balanced(rows, options.balance)
    assembly = assemble_from(start, params, publics)
    adapter = open_language_model(assembly, start[-1], params)
    trainable = open_for_training(assembly, head=head, q_formers=params.finetune.q_formers)
    features = Features.of(assembly, rows["dataset"], params.runtime, layout)
    objective = InstructionObjective(assembly, features, rows, trainable, options, params.seed, f"{label}-{run}")
    inputs = [
        params.runtime.model_dump(),
        params.finetune.tuning.model_dump(),
        params.finetune.q_formers,
        [sha256_file(folder / TRAINED) for folder in start],
        sha256_file(layout.instructions / f"{run}.parquet"),
    ]
    settings = Run(f"{label} {run}", options, params.strategy, params.seed, layout.state(f"{label}-{run}"), inputs)
    curve = train(objective, settings)
    if curve is None:  # the process that started this one writes the outputs
        return
    with atomic_dir(out) as folder:
        if run == RUNS[-1]:
            save_complete(folder, assembly, adapter)
        else:
            _save_between(folder, assembly, adapter)
    if curve_file is not None:
        write_curve(curve_file, curve if before is None else _continued(before, curve))
    finish(settings)


def _continued(before: pd.DataFrame, curve: pd.DataFrame) -> pd.DataFrame:
    """One curve of two phases, steps counted on; columns as in the second."""
    phases = [before.assign(phase="visual"), curve.assign(phase="language", step=curve["step"] + len(before))]
    return pd.concat(phases, ignore_index=True)[[*dict.fromkeys(["step", "phase", *curve, *before])]]


def assemble_from(start: Sequence[Path], params: Params, publics: Sequence[dict[str, Any]] = ()) -> Assembly:
    """The parts that the first checkpoint names, with what every one of `start` has trained.

    Args:
        publics: whose scores are to be learnt (`CalmConfig.publics`).
    """
    config = load_config(start[0])
    config.publics, config.verdicts = list(publics), bool(publics) and params.instructions.verdicts > 0
    if publics:  # a run that learns scores
        read = params.finetune.scores.regression
        config.score_visual, config.score_mirrored = read.visual, read.mirrored
    config.told_states = min(config.told_states, params.mfam.words.states)  # words that are read need no training
    assembly = assemble_named(config, params.runtime, params.seed)
    use_plain_attention(assembly.model)
    for folder in start:
        load_trained(folder, assembly.model)
    return assembly


def open_language_model(assembly: Assembly, last: Path, params: Params) -> PeftModel | None:
    """Make trainable what `finetune.tuning` says of the language model."""
    tuning = params.finetune.tuning
    if isinstance(tuning, LoRATuning):
        return load_adapter(assembly.model, last, trainable=True) or add_lora(assembly.model, tuning, params.seed)
    assembly.model.language_model.requires_grad_(True)
    return None


def head_beside_language(options: FinetuneScores) -> tuple[str, ...]:
    """Parts of the score head that S trains beside the language model.

    The visual part stays as its own phase has left it, where it had one: shaken by the larger steps that the language
    model needs, it would forget (docs/experiments.md).
    """
    return ("language",) if options.visual.steps else ("language", "visual")


def learns(name: str, q_formers: str) -> bool:
    """Whether fine-tuning trains the MFAM's parameter of that name, where its Q-formers are "trained" or "frozen"."""
    parts = name.split(".")
    kept = q_formers == "frozen" and parts[0] == "levels" and "to_language" not in parts
    return not kept and not any(part in CONTRASTIVE for part in parts)


def open_for_training(assembly: Assembly, *, head: Sequence[str], q_formers: str) -> dict[str, torch.nn.Parameter]:
    """The MFAM's path to the language model, the language model's open weights, these parts of the score head.

    Args:
        q_formers: "frozen" leaves queries and Q-formers as self-supervision has left them, so that what they recognise
            stays recognised; their projections to the language model learn all the same.
    """
    model = assembly.model
    for name, parameter in model.mfam.named_parameters():
        parameter.requires_grad_(learns(name, q_formers))
    for name, part in model.score_head.named_children():
        part.requires_grad_(name in head)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _save_between(folder: Path, assembly: Assembly, adapter: PeftModel | None) -> None:
    """What S begins with: the MFAM, and the language model's adapter or its tuned weights."""
    model = assembly.model
    names = [name for name in model.state_dict() if name.startswith("mfam.")]
    if adapter is not None:
        save_adapter(folder, adapter)
    else:
        names += [
            name for name, p in model.named_parameters() if name.startswith("language_model.") and p.requires_grad
        ]
    save_trained(folder, model, names)
