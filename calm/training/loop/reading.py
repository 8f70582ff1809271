"""Photographs decoded and edited ahead, by processes beside the one that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Semaphore
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from calm.training.loop.errors import TrainingError
from calm.training.loop.order import Part

TO_START = 60.0  # seconds until another worker has started
TRIES = 3

Read = Callable[[int, Part], Any]
Wanted = Sequence[tuple[int, Part]]


def ahead(read: Read, wanted: Wanted, workers: int) -> Iterator[Any]:
    """What `read` gives for each of `wanted`, in their order: by this process when asked, or by `workers` before.

    Every result is a function of (step, part) alone and made by one thread, so workers change no bit.
    """
    if not workers:
        yield from map(_by_one_thread(read), wanted)
        return
    yield from _started(_Results(read, wanted), workers)


def _started(results: _Results, workers: int) -> Iterator[Any]:
    """Results by workers that have all started.

    Until 3.11.10, Python may fork a worker while another thread holds a lock that the worker then waits for, for ever,
    and the training with it (python/cpython issue 112275); seen beside gloo's threads.

    Raises:
        TrainingError: workers did not start, however often they were forked.
    """
    fork = get_context("fork")
    for _ in range(TRIES):
        ready = fork.Semaphore(0)
        own = torch.Generator()  # or the loader would draw from torch's
        loader: DataLoader[Any] = DataLoader(
            results,
            batch_size=None,
            num_workers=workers,
            generator=own,
            multiprocessing_context=fork,
            worker_init_fn=partial(_tell, ready),
        )
        found = iter(loader)
        if all(ready.acquire(timeout=TO_START) for _ in range(workers)):
            return found
        del found  # ends its workers
    raise TrainingError(f"strategy.workers: {workers} processes did not start within {TO_START:.0f} s, {TRIES} times")


def _tell(ready: Semaphore, worker: int) -> None:
    ready.release()


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
