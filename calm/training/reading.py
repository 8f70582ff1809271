"""Photographs decoded and edited ahead, by processes beside the one that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from calm.training.order import Part

Read = Callable[[int, Part], Any]
Wanted = Sequence[tuple[int, Part]]


def ahead(read: Read, wanted: Wanted, workers: int) -> Iterator[Any]:
    """What `read` gives for each of `wanted`, in their order: by this process when asked, or by `workers` before.

    Every result is a function of (step, part) alone and made by one thread, so workers change no bit.
    """
    if not workers:
        yield from map(_by_one_thread(read), wanted)
        return
    own = torch.Generator()  # or the loader would draw from torch's
    yield from DataLoader(_Results(read, wanted), batch_size=None, num_workers=workers, generator=own)


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
