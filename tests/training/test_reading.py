"""Workers change nothing of what is read, and one that never starts is replaced."""

from __future__ import annotations

import time
from multiprocessing import Value
from multiprocessing.synchronize import Semaphore

import pytest

from calm.training.loop import reading
from calm.training.loop.errors import TrainingError
from calm.training.loop.order import Part

WANTED = [(step, Part(number, 2)) for step in range(5) for number in range(2)]
READ = [f"{step}, {part.number} of {part.of}" for step, part in WANTED]


def read(step: int, part: Part) -> str:
    return f"{step}, {part.number} of {part.of}"


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_in_which_they_are_wanted(workers: int) -> None:
    assert list(reading.ahead(read, WANTED, workers)) == READ


def hanging(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The first `count` workers never come to life."""
    left = Value("i", count)

    def tell(ready: Semaphore, worker: int) -> None:
        with left.get_lock():
            left.value -= 1
            hangs = left.value >= 0
        if hangs:
            time.sleep(600)
        ready.release()

    monkeypatch.setattr(reading, "_tell", tell)
    monkeypatch.setattr(reading, "TO_START", 1.0)


def test_a_worker_that_does_not_start_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging(monkeypatch, 1)
    assert list(reading.ahead(read, WANTED, 2)) == READ


def test_workers_that_never_start_are_an_error_and_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging(monkeypatch, 100)
    with pytest.raises(TrainingError, match=r"strategy\.workers: 1 processes did not start within 1 s, 3 times"):
        list(reading.ahead(read, WANTED, 1))
