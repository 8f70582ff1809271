"""Which samples a step sees: a function of (seed, step) alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from calm.seeds import stream

POOL = 16  # batches that are sorted together


class Visit(NamedTuple):
    """One sample, seen in one epoch."""

    sample: int
    epoch: int


class Part(NamedTuple):
    """One of `of` equal shares of a step's samples: what one process computes at once."""

    number: int = 0
    of: int = 1

    def slice(self, count: int) -> slice:
        """Where this share lies among `count` samples.

        Raises:
            ValueError: they cannot be shared evenly.
        """
        if count % self.of:
            raise ValueError(f"{count} samples cannot be shared evenly by {self.of}")
        size = count // self.of
        return slice(self.number * size, (self.number + 1) * size)


WHOLE = Part()


class Order:
    """Epochs of seeded permutations, cut into batches; a batch may reach over an epoch's end.

    With `lengths`, samples of like length share a batch, so that little of it is padding: within every `POOL` batches
    of the permutation samples are sorted, and the batches then shuffled. The last, partial one stays the last.
    """

    def __init__(self, count: int, batch_size: int, seed: int, name: str, lengths: Sequence[int] | None = None) -> None:
        if count == 0:
            raise ValueError(
                f"{name}: there is nothing to train on; check data.roles and what the leakage filter removed"
            )
        self.count, self.batch_size, self.seed, self.name = count, batch_size, seed, name
        self.lengths = None if lengths is None else np.asarray(lengths)
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
            kept = {key: value for key, value in self._epochs.items() if key >= epoch - 1}
            self._epochs = kept | {epoch: self._permutation(epoch)}
        return Visit(int(self._epochs[epoch][offset]), epoch)

    def _permutation(self, epoch: int) -> np.ndarray:
        rng = stream(self.seed, self.name, "epoch", epoch)
        permutation = rng.permutation(self.count)
        if self.lengths is None:
            return permutation
        size = self.batch_size * POOL
        pools = [permutation[start : start + size] for start in range(0, self.count, size)]
        ordered = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
        whole = self.count - self.count % self.batch_size
        batches = ordered[:whole].reshape(-1, self.batch_size)
        return np.concatenate([batches[rng.permutation(len(batches))].ravel(), ordered[whole:]])
