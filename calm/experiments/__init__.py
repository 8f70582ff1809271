"""Models trained again in another way. Here: the recipe of fine-tuning with a part left out, judged as the full one is.

Cross-validations are in their own file.
"""

from __future__ import annotations

import shutil

from calm.evaluation.base import Bench, load_model
from calm.evaluation.stage import find_task, settings
from calm.io import atomic_dir, write_json, write_table
from calm.layout import Layout
from calm.params import Params


class AblationError(ValueError):
    """An ablation that cannot be run; the message says why."""


def ablate(name: str, params: Params, layout: Layout) -> None:
    """Fine-tune as params.ablations[name] says, judge its tasks, write results/ablate/NAME/.

    The model itself is not kept: what it says of the test photographs is, so that the report can compare it row by row
    with what the full recipe says.

    Raises:
        AblationError: params name no such ablation, or it names a task that cannot be compared by photograph.
        ParamsError: it changes a key that params do not have, or to a wrong value.
        FileNotFoundError: the start folder does not exist.
    """
    if name not in params.ablations:
        raise AblationError(f"params.yaml: ablations has no entry '{name}'")
    ablation = params.ablations[name]
    tasks = {task: find_task(task) for task in ablation.tasks}
    if rest := [task for task, found in tasks.items() if found.compared is None]:
        raise AblationError(f"params.yaml: ablations.{name}.tasks: '{rest[0]}' has no figure of single photographs")
    changed = params.changed(ablation.change, f"params.yaml: ablations.{name}.change")
    start = layout.root / ablation.start
    if not start.is_dir():
        raise FileNotFoundError(f"{start} does not exist: run the stage that makes it (`dvc repro`), or `dvc pull`")
    from calm.training.finetune import train_from

    runs = [start / run for run in ("attributes", "alignment")]
    folder = layout.state(f"ablate@{name}") / "model"
    train_from(runs if runs[0].is_dir() else [start], folder, changed, layout, f"ablate-{name}")
    model = load_model(folder, params)
    metrics = ablation.model_dump()
    with atomic_dir(layout.ablation(name)) as part:
        for task, found in tasks.items():
            outcome = found.run(Bench(task, params, layout, model, settings(task, params)))
            metrics[task] = outcome.metrics
            (part / "predictions").mkdir(exist_ok=True)
            write_table(part / "predictions" / f"{task}.parquet", outcome.predictions, outcome.schema)
        write_json(part / "metrics.json", metrics)
    shutil.rmtree(folder.parent)
