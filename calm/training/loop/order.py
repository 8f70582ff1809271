"""Which samples a step sees, a function of (seed, step) alone; their photographs are decoded and edited ahead of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from calm.seeds import stream
from calm.training.loop.processes import TrainingError

POOL = 16  # batches that are sorted together
SILENCE = 180.0  # seconds without a result after which workers are replaced
TRIES = 3


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


Read = Callable[[int, Part], Any]
Wanted = Sequence[tuple[int, Part]]


def ahead(read: Read, wanted: Wanted, workers: int) -> Iterator[Any]:
    """What `read` gives for each of `wanted`, in their order: by this process when asked, or by `workers` before.

    Every result is a function of (step, part) alone and made by one thread, so workers change no bit, and workers that
    fall silent can be replaced: until 3.11.10, Python may fork one while another thread holds a lock, for which it then
    waits for ever, and the training with it (python/cpython issue 112275; seen beside gloo's threads).

    Raises:
        TrainingError: workers gave no result, however often they were forked.
    """
    if not workers:
        yield from map(_by_one_thread(read), wanted)
        return
    done = tries = 0
    while done < len(wanted):
        try:
            for result in _forked(_Results(read, wanted[done:]), workers):
                yield result
                done, tries = done + 1, 0
        except RuntimeError as error:
            if "DataLoader timed out" not in str(error):
                raise
            tries += 1
            if tries == TRIES:
                said = f"{workers} processes read nothing within {SILENCE:.0f} s, {TRIES} times"
                raise TrainingError(f"strategy.workers: {said}: is the disk with the photographs there?") from error


def _forked(results: _Results, workers: int) -> DataLoader[Any]:
    return DataLoader(
        results,
        batch_size=None,
        num_workers=workers,
        timeout=SILENCE,
        generator=torch.Generator(),  # or the loader would draw from torch's own
        multiprocessing_context=get_context("fork"),
    )


class _Results(Dataset[Any]):
    def __init__(self, read: Read, wanted: Wanted) -> None:
        self.read, self.wanted = read, wanted

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, index: int) -> Any:
        return self.read(*self.wanted[index])  # the loader's workers have one thread


def _by_one_thread(read: Read) -> Callable[[tuple[int, Part]], Any]:
    def result(one: tuple[int, Part]) -> Any:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return read(*one)
        finally:
            torch.set_num_threads(threads)

    return result
