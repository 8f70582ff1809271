"""A small network for processes of a test to train: layers, one of them frozen, of sizes that share out badly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calm.training.loop.engine import Run
from calm.training.loop.order import Order, Part
from calm.training.settings import Optimisation, Strategy

STEPS = 20
BATCH = 8
COUNT = 20  # samples: an epoch ends within a step
OPTIONS = Optimisation(
    steps=STEPS,
    batch_size=BATCH,
    learning_rate=0.02,
    warmup=0.2,
    weight_decay=0.01,
    max_grad_norm=1.0,
    checkpoint_every=3,
)


class Killed(BaseException):
    """What no `except Exception` catches."""


class Net:
    """A noisy regression; the noise comes from torch's own generator, as dropout's does."""

    def __init__(self, stop: int | None = None, noise: float = 0.1) -> None:
        torch.manual_seed(5)
        self.model = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 1))
        self.model[2].requires_grad_(False)
        self.order = Order(COUNT, BATCH, 3, "net")
        self.points = torch.linspace(-1, 1, 3 * COUNT).view(COUNT, 3)
        self.stop, self.noise = stop, noise
        self.seen: list[int] = []

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def read(self, step: int, part: Part) -> torch.Tensor:
        everyone = self.order(step)
        return self.points[everyone[part.slice(len(everyone))]]

    def losses(self, step: int, part: Part, points: torch.Tensor) -> dict[str, torch.Tensor]:
        if step == self.stop and part.number >= part.of - 2:  # in the last round of two processes
            raise Killed
        noise = self.noise * torch.randn(len(points), 1)
        loss = (self.model(points) + noise - points.sum(1, keepdim=True).sin()).square().mean()
        return {"loss": loss / part.of, "size": loss.new_tensor(len(points))}


def run_in(state: Path, strategy: Strategy | None = None, **changes: Any) -> Run:
    """A run of the network."""
    settings: dict[str, Any] = {
        "title": "net",
        "optimisation": OPTIONS,
        "strategy": strategy or Strategy(kind="single"),
        "seed": 3,
        "state": state,
        "inputs": ["points"],
    }
    return Run(**settings | changes)
