"""The training loop: one for all stages, resumable to the bit.

A step's data and every random draw are functions of (seed, step) alone, so resuming needs no replay: the weights, the
optimiser's state and the step's number are all there is. State is kept outside the declared outputs, written under a
temporary name and renamed, so a run that is killed at any moment goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import get_cosine_schedule_with_warmup

from calm.io import atomic_dir, atomic_file, sha256_file, sha256_text, write_json
from calm.params import Optimisation, Strategy
from calm.seeds import derive

BETAS = (0.9, 0.999)  # Adam (paper); betas as in LLaVA-1.5's recipe
DAMAGE = (OSError, ValueError, KeyError, RuntimeError, EOFError, UnpicklingError, SafetensorError)
CODE = ("attributes", "data", "model", "training")  # packages that decide what a step computes
KEPT = 2  # checkpoints: the last one, and one more should that be damaged


class TrainingError(RuntimeError):
    """Training that cannot go on."""


class Objective(Protocol):
    """What a stage teaches: which parameters, and the loss of each step."""

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """What is trained, by its name in the model."""
        ...

    def losses(self, step: int) -> dict[str, torch.Tensor]:
        """Scalars to record; "loss" is the one that is minimised."""
        ...


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
        """Hash of everything that decides the result."""
        parts = [self.title, self.optimisation.model_dump(), self.strategy.model_dump(), self.seed, self.inputs]
        computed_by = [torch.get_num_threads(), torch.__version__, _code_sha256()]
        return sha256_text(json.dumps([*parts, *computed_by], sort_keys=True, default=str))

    @property
    def checkpoints(self) -> Path:
        """Where this very run, and none with another fingerprint, keeps its checkpoints."""
        return self.state / self.fingerprint[:16]


@cache
def _code_sha256() -> str:
    """Hash of the code as it stands: a run killed before an edit must not go on after it."""
    package = Path(__file__).parents[1]
    files = sorted(path for name in CODE for path in (package / name).rglob("*.py"))
    return sha256_text(json.dumps([[path.relative_to(package).as_posix(), sha256_file(path)] for path in files]))


def train(objective: Objective, run: Run) -> pd.DataFrame:
    """Minimise the objective in place; returns the curve, a row a step.

    Raises:
        TrainingError: the strategy is not available, or a loss or gradient is not finite (the last checkpoint stays).
    """
    if run.strategy.kind != "single":
        raise TrainingError(f"strategy.kind: '{run.strategy.kind}' is not available yet; set strategy.kind to single")
    options, parameters = run.optimisation, objective.parameters
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=options.learning_rate, betas=BETAS, weight_decay=options.weight_decay
    )
    warmup = math.ceil(options.warmup * options.steps)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, options.steps)
    curve: list[dict[str, float]] = _resume(run, parameters, optimizer, schedule)
    with _progress() as progress:
        bar = progress.add_task(run.title, total=options.steps, completed=len(curve), loss=math.nan)
        for step in range(len(curve), options.steps):
            row = _step(objective, step, run, optimizer, schedule)
            curve.append(row)
            progress.update(bar, advance=1, loss=row["loss"])
            if (step + 1) % options.checkpoint_every == 0 and step + 1 < options.steps:
                _save(run, step + 1, parameters, optimizer, schedule, curve)
    return _table(curve)


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


def _step(objective: Objective, step: int, run: Run, optimizer: Any, schedule: Any) -> dict[str, float]:
    torch.manual_seed(derive(run.seed, run.title, "torch", step))
    losses = objective.losses(step)
    values = {name: loss.item() for name, loss in losses.items()}
    _check_finite("loss", values["loss"], step, run)
    optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()
    norm = torch.nn.utils.clip_grad_norm_(objective.parameters.values(), run.optimisation.max_grad_norm)
    _check_finite("gradient", norm.item(), step, run)
    rate = schedule.get_last_lr()[0]
    optimizer.step()
    schedule.step()
    return {"step": step, **values, "learning_rate": rate, "gradient_norm": norm.item()}


def _check_finite(what: str, value: float, step: int, run: Run) -> None:
    """Stop before a number that is none reaches the weights, and with them a checkpoint."""
    if not math.isfinite(value):
        raise TrainingError(
            f"{run.title}: the {what} of step {step} is {value}: try a lower learning rate; "
            f"state is kept in {run.state}"
        )


def _save(
    run: Run, step: int, parameters: Mapping[str, torch.nn.Parameter], optimizer: Any, schedule: Any, curve: list[Any]
) -> None:
    with atomic_dir(run.checkpoints / f"step-{step:08d}") as folder:
        save_file(
            {name: value.detach().contiguous() for name, value in parameters.items()}, folder / "weights.safetensors"
        )
        torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, folder / "optimizer.pt")
        write_json(folder / "run.json", {"fingerprint": run.fingerprint, "curve": curve})
    for old in sorted(run.checkpoints.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def _resume(run: Run, parameters: Mapping[str, torch.nn.Parameter], optimizer: Any, schedule: Any) -> list[Any]:
    """Load the newest whole checkpoint of this very run; returns the curve so far."""
    for folder in sorted(run.checkpoints.glob("step-*"), reverse=True):
        try:
            record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            if record["fingerprint"] != run.fingerprint:
                raise ValueError("of another run")
            weights = load_file(folder / "weights.safetensors")
            state = torch.load(folder / "optimizer.pt", weights_only=True)
            if set(weights) != set(parameters):
                raise ValueError("other parameters")
        except DAMAGE as error:
            Console(stderr=True).print(f"{folder}: damaged checkpoint ({error}), trying the one before", style="yellow")
            continue
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(weights[name])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        Console(stderr=True).print(f"{run.title}: resumed at step {len(record['curve'])}")
        curve: list[Any] = record["curve"]
        return curve
    return []


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal)
