"""The training loop: one for all stages and strategies, resumable to the bit.

A step's data and every random draw are functions of (seed, step) alone, so resuming needs no replay: the weights, the
optimiser's state and the step's number are all there is. State is kept outside the declared outputs, written under a
temporary name and renamed, so a run that is killed at any moment goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import get_cosine_schedule_with_warmup

from calm.io import atomic_file, code_sha256, sha256_text
from calm.seeds import derive
from calm.training.loop import checkpoints
from calm.training.loop.checkpoints import Saved
from calm.training.loop.order import ahead
from calm.training.loop.processes import Processes, TrainingError, join
from calm.training.loop.strategies import Losses, Objective, Trainer, open_trainer, take_weights
from calm.training.loop.throughput import measured
from calm.training.settings import Optimisation, Strategy

__all__ = ["Objective", "Run", "TrainingError", "finish", "train", "write_curve"]

# What decides what a step computes, and what a model that was learnt answers (kept by a cross-validation).
CODE = ("assistant", "attributes", "data", "experiments", "instructions", "model", "training")
EXPLODED = 100.0  # times the usual loss; a batch of outliers stays far below
USUAL = 32  # last steps whose median is the usual loss


@dataclass(frozen=True)
class Run:
    """One run of the loop.

    Attributes:
        title: for people.
        optimisation: the params section.
        seed: of every draw.
        state: folder of the resumable state, one below it for each fingerprint.
        inputs: anything that decides the result beside this; state of a run with other inputs is not resumed.
    """

    title: str
    optimisation: Optimisation
    strategy: Strategy
    seed: int
    state: Path
    inputs: Any

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the result, but for the order in which the same numbers are added.

        That order is the strategy's: a run may go on with another one, and says so.
        """
        parts = [self.title, self.optimisation.model_dump(), self.seed, self.inputs]
        computed_by = [torch.get_num_threads(), torch.__version__, code_sha256(*CODE)]
        return sha256_text(json.dumps([*parts, *computed_by], sort_keys=True, default=str))

    @property
    def checkpoints(self) -> Path:
        """Where this very run, and none with another fingerprint, keeps its checkpoints."""
        return self.state / self.fingerprint[:16]

    @property
    def throughput(self) -> Path:
        """Figures of speed: beside the state, since they outlive it and are no output."""
        return self.state.with_name(f"{self.state.name}.throughput.json")


def train(objective: Objective, run: Run) -> pd.DataFrame | None:
    """Minimise the objective in place; returns the curve, a row a step.

    Where `launch` has started several processes, each of them calls this, leaves its part in a last checkpoint and gets
    None: it has nothing more to do. The process that started them calls this afterwards and gets what they learned.

    Raises:
        TrainingError: a loss or gradient is not finite or explodes, or a checkpoint cannot be written (the last good
            one stays in both cases).
    """
    processes = join()
    if run.strategy.kind != "single" and not processes.together:
        return _table(_collect(objective, run, processes))
    assert processes.world == run.strategy.world, "started by another launcher than launch.py's"
    saved = _resume(objective, run, processes)
    trainer = open_trainer(objective, run.optimisation, run.strategy, processes, saved)
    curve = list(saved.curve) if saved else []
    _loop(trainer, run, curve)
    if not processes.together:
        return _table(curve)
    if saved is None or len(saved.curve) < len(curve):
        _save(trainer, run, curve)
    return None


def _loop(trainer: Trainer, run: Run, curve: list[dict[str, float]]) -> None:
    """The steps that `curve` lacks."""
    options = run.optimisation
    rates = learning_rates(options)
    wanted = [(step, part) for step in range(len(curve), options.steps) for part in trainer.parts]
    read = ahead(trainer.objective.read, wanted, run.strategy.workers)
    log = run.throughput if trainer.processes.rank == 0 else None
    watched = trainer.objective.model, options.batch_size, trainer.processes.world
    with measured(run.title, *watched, log) as stepped, _progress(trainer.processes) as progress:
        bar = progress.add_task(run.title, total=options.steps, completed=len(curve), loss=math.nan)
        for step in range(len(curve), options.steps):
            row = _step(trainer, step, read, run, rates(step), curve)
            curve.append(row)
            stepped(row.get("padding"))
            progress.update(bar, advance=1, loss=row["loss"])
            if (step + 1) % options.checkpoint_every == 0 and step + 1 < options.steps:
                _save(trainer, run, curve)


def learning_rates(options: Optimisation) -> Any:
    """Step to learning rate: linear warm-up, then a cosine to 0 (paper)."""
    nothing = torch.optim.SGD([torch.zeros(1)], lr=options.learning_rate)
    warmup = math.ceil(options.warmup * options.steps)
    (factor,) = get_cosine_schedule_with_warmup(nothing, warmup, options.steps).lr_lambdas
    return lambda step: options.learning_rate * factor(step)


def _table(curve: list[dict[str, float]]) -> pd.DataFrame:
    """Rows to a table whose columns stand in one order, whether the rows were read back or not."""
    ends = (("step", "loss"), ("learning_rate", "gradient_norm"))
    between = sorted({name for row in curve for name in row}.difference(*ends))
    return pd.DataFrame(curve, columns=[*ends[0], *between, *ends[1]])


def finish(run: Run) -> None:
    """Forget a run's state, once its output stands under its final name."""
    shutil.rmtree(run.state, ignore_errors=True)


def write_curve(path: Path, curve: pd.DataFrame) -> None:
    """A csv for `dvc plots`: step, losses, learning rate, gradient norm. No times: they are not results."""
    with atomic_file(path) as part:
        curve.to_csv(part, index=False, float_format="%.6g")


def _step(
    trainer: Trainer, step: int, read: Iterator[Any], run: Run, rate: float, curve: list[dict[str, float]]
) -> dict[str, float]:
    contributions: list[Losses] = []
    for part in trainer.parts:
        torch.manual_seed(derive(run.seed, run.title, "torch", step, *(part if part.of > 1 else ())))
        losses = trainer.learn(step, part, next(read), last=part is trainer.parts[-1])
        contributions.append({name: value.detach() for name, value in losses.items()})
    values = _total(contributions, trainer.processes)
    _check_finite("loss", values["loss"], step, run)
    _check_usual(values["loss"], step, run, curve)
    norm = trainer.update(rate)
    _check_finite("gradient", norm, step, run)
    return {"step": step, **values, "learning_rate": rate, "gradient_norm": norm}


def _total(contributions: list[Losses], processes: Processes) -> dict[str, float]:
    """Sums over rounds and processes."""
    names = list(contributions[0])
    values = torch.stack([torch.stack([losses[name].float() for name in names]) for losses in contributions]).sum(0)
    return dict(zip(names, processes.sum(values).tolist(), strict=True))


def _check_finite(what: str, value: float, step: int, run: Run) -> None:
    """Stop before a number that is none reaches the weights, and with them a checkpoint."""
    if not math.isfinite(value):
        _stop(f"the {what} of step {step} is {value}", run)


def _check_usual(loss: float, step: int, run: Run, curve: list[dict[str, float]]) -> None:
    """Stop where training has diverged: what comes next is noise, and newer checkpoints displace the good ones."""
    usual = max(1.0, median(row["loss"] for row in curve[-USUAL:])) if curve else math.inf
    if loss > EXPLODED * usual:
        _stop(f"the loss of step {step} has exploded: {loss:.3g}, usual are {usual:.3g}", run)


def _stop(why: str, run: Run) -> None:
    raise TrainingError(f"{run.title}: {why}: try a lower learning rate; state is kept in {run.state}")


def _save(trainer: Trainer, run: Run, curve: list[dict[str, float]]) -> None:
    strategy = run.strategy.model_dump()
    checkpoints.save(run.checkpoints, run.fingerprint, curve, strategy, trainer.tensors(), trainer.processes)


def _resume(objective: Objective, run: Run, processes: Processes) -> Saved | None:
    """The newest whole checkpoint of this very run."""
    saved = checkpoints.newest(run.checkpoints, run.fingerprint, list(objective.parameters), processes)
    if saved is not None and processes.rank == 0:
        tell = Console(stderr=True, soft_wrap=True).print
        tell(f"{run.title}: resumed at step {len(saved.curve)}")
        if changed := {key for key, value in run.strategy.model_dump().items() if saved.strategy.get(key) != value}:
            before = ", ".join(f"strategy.{key} was {saved.strategy.get(key)}" for key in sorted(changed))
            tell(f"{run.title}: {before}: the same batches and losses from here on, but not the same bits")
    return saved


def _collect(objective: Objective, run: Run, processes: Processes) -> list[dict[str, float]]:
    """What the processes that were started for this run have learned, into the objective's own weights."""
    saved = checkpoints.newest(run.checkpoints, run.fingerprint, list(objective.parameters), processes)
    steps = len(saved.curve) if saved else 0
    if saved is None or steps < run.optimisation.steps:
        raise TrainingError(f"{run.title}: its processes have left {steps} of {run.optimisation.steps} steps")
    take_weights(objective, saved)
    return saved.curve


def _progress(processes: Processes) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=processes.rank > 0 or not console.is_terminal)
