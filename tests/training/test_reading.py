"""Workers change nothing of what is read, and one that falls silent is replaced."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing import Value

import pytest
import torch

from calm.training.loop import order
from calm.training.loop.order import Part, Read
from calm.training.loop.processes import TrainingError

WANTED = [(step, Part(number, 2)) for step in range(5) for number in range(2)]
READ = [f"{step}, {part.number} of {part.of}" for step, part in WANTED]


def read(step: int, part: Part) -> str:
    return f"{step}, {part.number} of {part.of}"


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_in_which_they_are_wanted(workers: int) -> None:
    assert list(order.ahead(read, WANTED, workers)) == READ


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Read]:
    """A reader that hangs so many times, and is given up after a second."""
    monkeypatch.setattr(order, "SILENCE", 1.0)
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)  # how long one that hangs may end

    def start(times: int) -> Read:
        left = Value("i", times)

        def read_or_hang(step: int, part: Part) -> str:
            with left.get_lock():
                hangs = step == 2 and left.value > 0
                left.value -= hangs
            if hangs:
                time.sleep(600)
            return read(step, part)

        return read_or_hang

    return start


def test_a_worker_that_falls_silent_is_replaced_and_no_result_is_lost(silent: Callable[[int], Read]) -> None:
    assert list(order.ahead(silent(1), WANTED, 2)) == READ


def test_workers_that_stay_silent_are_an_error_and_no_silence(silent: Callable[[int], Read]) -> None:
    results = order.ahead(silent(100), WANTED, 1)
    with pytest.raises(TrainingError, match=r"strategy\.workers: 1 processes read nothing within 1 s, 3 times"):
        list(results)


def test_an_error_while_reading_is_no_silence() -> None:
    def damaged(step: int, part: Part) -> str:
        raise RuntimeError(f"step {step}")

    with pytest.raises(RuntimeError, match="step 0"):
        list(order.ahead(damaged, WANTED, 1))
