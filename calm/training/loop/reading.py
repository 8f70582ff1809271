"""Photographs decoded and edited ahead, by processes beside the one that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from calm.training.loop.order import Part
from calm.training.loop.processes import TrainingError

SILENCE = 180.0  # seconds without a result after which workers are replaced
TRIES = 3

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
