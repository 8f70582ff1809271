"""Stage `evaluate`. A task is one file of `calm/evaluation/tasks/`; its name is the task's name."""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from calm.evaluation import tasks
from calm.evaluation.base import Bench, EvaluationError, Outcome, Task, load_model
from calm.evaluation.settings import TaskSettings
from calm.io import atomic_dir, write_json, write_table
from calm.layout import Layout
from calm.params import Params
from calm.settings import checked, defined

if TYPE_CHECKING:
    from calm.assistant import Calm


def evaluate(task: str, params: Params, layout: Layout, *, model: Calm | None = None) -> None:
    """Judge a model on one task and write results/TASK/{metrics.json,predictions.parquet,plots/}, whole or not at all.

    `model` is the one to judge; without it, the model folder that params.evaluation.tasks names is loaded.

    Raises:
        EvaluationError: no such task, or its test list is empty.
        ParamsError: the task's settings are wrong.
        FileNotFoundError: the model or a table is missing; the message says what to run.
    """
    own = settings(task, params)
    if model is None:
        model = load_model(layout.root / own.model, params)
    write_outcome(layout.result(task), find_task(task).run(Bench(task, params, layout, model, own)))


def settings(name: str, params: Params) -> TaskSettings:
    """What params.evaluation.tasks says of one task, checked by the class that the task's file declares.

    Raises:
        EvaluationError: calm has no such task, or params do not name it.
        ParamsError: a key is unknown, missing or has a wrong value.
    """
    task = find_task(name)
    if name not in params.evaluation.tasks:
        raise EvaluationError(f"params.yaml: evaluation.tasks has no entry '{name}'; it names the model to judge")
    return checked(task.settings, params.evaluation.tasks[name], "params", prefix=f"evaluation.tasks.{name}.")


def names() -> list[str]:
    """Every file that could define a task."""
    return sorted(module.name for module in pkgutil.iter_modules(tasks.__path__))


def find_task(name: str) -> Task:
    """The task defined by calm/evaluation/tasks/NAME.py.

    Raises:
        EvaluationError: there is no such file, or it defines no TASK.
    """
    if not name.isidentifier():
        raise EvaluationError(f"'{name}' cannot be a task: a task is named after its file in calm/evaluation/tasks")
    try:
        return defined(tasks.__name__, name, "TASK", Task)
    except LookupError as error:
        raise EvaluationError(f"no task '{name}': {error}") from None


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write metrics, predictions and plots; `folder` is replaced as a whole, so it never holds a mixture of runs."""
    with atomic_dir(folder) as part:
        write_json(part / "metrics.json", outcome.metrics)
        write_table(part / "predictions.parquet", outcome.predictions, outcome.schema)
        (part / "plots").mkdir()  # an output of the stage, also where a task draws nothing
        for name, content in outcome.plots.items():
            (part / "plots" / name).write_bytes(content)
