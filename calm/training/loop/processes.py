"""The processes of one run, as the launcher has started them: who this one is, and what all of them say."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import distributed

Value = TypeVar("Value")


class TrainingError(ValueError):
    """Training that cannot go on; the message says why, and what is kept."""


class Processes:
    """One process alone, or the members of torch's default group.

    Attributes:
        rank: number of this process.
        world: how many there are.
    """

    def __init__(self) -> None:
        self.together = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if self.together else 0
        self.world = distributed.get_world_size() if self.together else 1

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, the same bits on each."""
        if self.together:
            distributed.all_reduce(values)
        return values

    def first(self, action: Callable[[], Value]) -> Value:
        """What rank 0 gets from `action`, which the others do not run. An error there is an error everywhere."""

        def run() -> Any:
            return action() if self.rank == 0 else None

        found: Value = self.agree(run)[0]
        return found

    def agree(self, action: Callable[[], Value]) -> list[Value]:
        """Run `action` on every process; if it fails on one it has failed on all, so that nobody waits for the dead.

        Raises:
            TrainingError: with what the failing processes say.
        """
        result: Any = None
        problem = None
        try:
            result = action()
        except Exception as error:  # told on every process
            if not self.together:
                raise
            problem = f"{type(error).__name__}: {error}" if not isinstance(error, TrainingError) else str(error)
        answers: list[Any] = [(result, problem)] * self.world  # in the order of their ranks
        if self.together:
            distributed.all_gather_object(answers, (result, problem))
        if problems := sorted({said for _, said in answers if said}):
            raise TrainingError("; ".join(problems))
        return [result for result, _ in answers]


def join() -> Processes:
    """Enter the group that the launcher's environment variables describe; alone where there are none."""
    if "RANK" in os.environ and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return Processes()
