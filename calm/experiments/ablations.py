"""The same recipe of fine-tuning from another start, scored as the full recipe is: what does the left-out thing do?"""

from __future__ import annotations

import shutil

from calm.evaluation.base import Bench, Outcome, load_model
from calm.evaluation.stage import write_outcome
from calm.evaluation.tasks.scoring import PREDICTIONS, measure, predict, rated
from calm.layout import Layout
from calm.params import Params


class AblationError(ValueError):
    """An ablation that cannot be run; the message says why."""


def ablate(name: str, params: Params, layout: Layout) -> None:
    """Fine-tune from params.ablations[name].start, judge the scores, write results/ablate/NAME/.

    The model itself is not kept: its scores of the test photographs are, so that the report can compare them row by
    row with those of the full recipe.

    Raises:
        AblationError: params name no such ablation.
        FileNotFoundError: the start folder does not exist.
    """
    if name not in params.ablations:
        raise AblationError(f"params.yaml: ablations has no entry '{name}'")
    ablation = params.ablations[name]
    start = layout.root / ablation.start
    if not start.is_dir():
        raise FileNotFoundError(f"{start} does not exist: run the stage that makes it (`dvc repro`), or `dvc pull`")
    from calm.training.finetune import train_from

    folder = layout.state(f"ablate@{name}") / "model"
    train_from([start], folder, params, layout, f"ablate-{name}")
    bench = Bench("scoring", params, layout, load_model(folder, params), ablation)
    predictions = predict(bench, rated(bench, "test"))
    metrics = {"start": ablation.start} | measure(predictions, bench.bootstrap)
    write_outcome(layout.ablation(name), Outcome(metrics, predictions, PREDICTIONS))
    shutil.rmtree(folder.parent)
