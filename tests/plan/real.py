"""Real training steps of the tiny profile, as the stages build them, to hold plans against."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from calm.plan.shapes import STAGES, Lengths
from calm.training import finetune, pretrain


class Caught(Exception):
    """Carries the objective that a stage was about to train."""


@dataclass
class Step:
    """A stage's objective with what its first step looks like."""

    objective: Any
    questions: int  # of self-supervision to the language model
    lengths: Lengths

    @property
    def model(self) -> torch.nn.Module:
        found: torch.nn.Module = self.objective.assembly.model
        return found

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        return dict(self.objective.parameters)

    def loss(self) -> torch.Tensor:
        found: torch.Tensor = self.objective.losses(0)["loss"]
        return found


def step_of(stage: str, params: Any, layout: Any, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Run a stage up to its training. The pre-training runs, or the stage before, must have left their weights."""

    def catch(objective: Any, run: Any) -> None:
        raise Caught(objective)

    module: Any = pretrain if stage in STAGES[:2] else finetune
    monkeypatch.setattr(module, "train", catch)
    with pytest.raises(Caught) as caught:
        (pretrain.pretrain if stage in STAGES[:2] else finetune.finetune)(stage, params, layout)
    objective = caught.value.args[0]
    objective.model.requires_grad_(False)
    for parameter in objective.parameters.values():
        parameter.requires_grad_(True)
    samples, lengths = _look(objective)
    return Step(objective, samples if stage == "attributes" else 0, lengths)


def _look(objective: Any) -> tuple[int, Lengths]:
    """How many conversations the first step has, and how long they are beside the visual tokens."""
    model, seen = objective.assembly.model, []
    hook = model.register_forward_pre_hook(lambda _, __, inputs: seen.append(inputs), with_kwargs=True)
    objective.losses(0)
    hook.remove()
    (inputs,) = seen
    samples, length = inputs["input_ids"].shape
    answer = round((inputs["labels"] != -100).sum().item() / samples)
    return samples, Lengths(length - inputs["visual_tokens"].shape[1] - answer, answer)


@contextmanager
def allocations() -> Iterator[Callable[[], int]]:
    """Yields what tells, afterwards, the most bytes that were allocated at once beyond those at the start."""
    gc.collect()  # or what an earlier test has left is given back meanwhile, and counts against the peak
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        yield lambda: _peak(profile)


def _peak(profile: Any) -> int:
    held = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    assert events, "the profiler has seen no allocation"
    return peak
