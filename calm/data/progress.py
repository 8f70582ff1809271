"""Long work: results of threads in order; progress on stderr, a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

_LINE_SECONDS = 60.0
Advance = Callable[[int], None]
Element = TypeVar("Element")
Result = TypeVar("Result")


class _Amounts(ProgressColumn):
    """`3 of 95, 12.1 images/s`."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(amounts(task.completed, task.total or 0, task.speed, self.unit))


def amounts(done: float, total: float, rate: float | None, unit: str) -> str:
    """How far work has come, and how fast."""
    of = f"{done:,.0f} of {total:,.0f}"
    return of if rate is None else f"{of}, {rate:,.1f} {unit}/s"


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Yield a function that is told how much more is done.

    Args:
        total: of `unit`.
        done: what an earlier run had done already; it does not count for the rate.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(title, total, unit, done).advance
        return
    columns = (TextColumn("{task.description}"), BarColumn(), _Amounts(unit), TimeElapsedColumn())
    bars = Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # to stderr it would go: standard output may be somebody's csv
    )
    with bars:
        task = bars.add_task(title, total=total, completed=done)
        yield lambda step: bars.advance(task, step)


class _Lines:
    """For logs: nothing of work that takes less than a minute."""

    def __init__(self, title: str, total: int, unit: str, done: int) -> None:
        self.title, self.total, self.unit, self.done, self.before = title, total, unit, done, done
        self.started = self.told = time.monotonic()

    def advance(self, step: int) -> None:
        self.done += step
        now = time.monotonic()
        if now - self.told < _LINE_SECONDS:
            return
        self.told = now
        rate = (self.done - self.before) / (now - self.started)
        text = f"{self.title}: {amounts(self.done, self.total, rate, self.unit)}"
        if rate > 0:
            text += f", {(self.total - self.done) / rate / 60:.0f} min left"
        print(text, file=sys.stderr, flush=True)


def in_order(
    pool: Executor, work: Callable[[Element], Result], elements: Iterable[Element], waiting: int
) -> Iterator[Result]:
    """Results in the order of `elements`, of which at most `waiting` are worked on or wait to be taken."""
    futures: deque[Future[Result]] = deque()
    try:
        for element in elements:
            if len(futures) >= waiting:
                yield futures.popleft().result()
            futures.append(pool.submit(work, element))
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
