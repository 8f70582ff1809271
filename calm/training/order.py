"""Which samples a step sees: a function of (seed, step) alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from calm.seeds import stream


class Visit(NamedTuple):
    """One sample, seen in one epoch."""

    sample: int
    epoch: int


class Order:
    """Epochs of seeded permutations, cut into batches; a batch may reach over an epoch's end."""

    def __init__(self, count: int, batch_size: int, seed: int, name: str) -> None:
        if count == 0:
            raise ValueError(
                f"{name}: there is nothing to train on; check data.roles and what the leakage filter removed"
            )
        self.count, self.batch_size, self.seed, self.name = count, batch_size, seed, name
        self._epochs: dict[int, np.ndarray] = {}

    def __call__(self, step: int) -> list[int]:
        """Indices of the samples of a step."""
        return [visit.sample for visit in self.visits(step)]

    def visits(self, step: int) -> list[Visit]:
        """The samples of a step, each with the epoch that it is seen in."""
        first = step * self.batch_size
        return [self._at(position) for position in range(first, first + self.batch_size)]

    def _at(self, position: int) -> Visit:
        epoch, offset = divmod(position, self.count)
        if epoch not in self._epochs:
            permutation = stream(self.seed, self.name, "epoch", epoch).permutation(self.count)
            self._epochs = {key: value for key, value in self._epochs.items() if key >= epoch - 1} | {
                epoch: permutation
            }
        return Visit(int(self._epochs[epoch][offset]), epoch)
