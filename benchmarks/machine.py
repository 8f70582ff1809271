"""What this machine can do, measured: matrix products, memory, and the price of an operation that does nothing.

In seconds of processor time, shared out over the threads: on a machine that others use too, the clock on the wall
measures them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import nn

from calm.plan.shapes import Cost

COPIED = 64 * 2**20  # bytes; far more than a cache holds
EMPTY = 2000  # operations on one number
RUNS = 9


@dataclass(frozen=True)
class Machine:
    """Rates of this process with the threads that it has.

    Attributes:
        flops: a second, by number format.
        bandwidth: bytes read and written a second.
        overhead: seconds that any operation takes, forward or backward.
    """

    flops: dict[torch.dtype, float]
    bandwidth: float
    overhead: float

    @staticmethod
    def measured(dtype: torch.dtype, shape: tuple[int, int, int]) -> Machine:
        """Median of a few runs each, for float32 and `dtype`.

        Args:
            shape: of the product (rows, inputs, outputs); one that fits a cache would promise too much.
        """
        rows, inputs, outputs = shape
        flops = {}
        for kind in dict.fromkeys((torch.float32, dtype)):
            left, weight = torch.ones(rows, inputs, dtype=kind), torch.ones(outputs, inputs, dtype=kind)
            flops[kind] = 2 * rows * inputs * outputs / _seconds(partial(nn.functional.linear, left, weight))
        source, target = torch.ones(COPIED // 4), torch.empty(COPIED // 4)
        bandwidth = 2 * COPIED / _seconds(lambda: target.copy_(source))
        return Machine(flops, bandwidth, _seconds(_empty_operations) / (2 * EMPTY))

    def roofline(self, cost: Cost) -> float:
        """The least seconds: every operation at the peak or at the bandwidth, whichever is slower."""
        fallback = self.flops[torch.float32]
        return sum(
            max(op.flops / (self.flops.get(op.dtype, fallback) if op.dtype else fallback), op.moved / self.bandwidth)
            for op in cost.operations
        )

    def predicted(self, cost: Cost, trained_bytes: int) -> float:
        """Seconds of a step: the roofline, the overhead of its operations, and clipping and Adam over the weights."""
        passes = 12  # reads and writes of a weight's size: norm, scale, two moments, the update
        return self.roofline(cost) + len(cost.operations) * self.overhead + passes * trained_bytes / self.bandwidth

    def __str__(self) -> str:
        peaks = ", ".join(f"{rate / 1e9:.0f} GFLOP/s {str(kind)[6:]}" for kind, rate in self.flops.items())
        return f"{peaks}, {self.bandwidth / 1e9:.1f} GB/s, {self.overhead * 1e6:.1f} us an operation"


def _empty_operations() -> None:
    value = torch.ones(1, requires_grad=True)
    for _ in range(EMPTY):
        value = value * 1.0
    value.backward()


def processor_seconds() -> float:
    """Processor time of this process so far, for each of its threads."""
    return time.process_time() / torch.get_num_threads()


def _seconds(action: Callable[[], object]) -> float:
    seconds = []
    for _ in range(RUNS):
        started = processor_seconds()
        action()
        seconds.append(processor_seconds() - started)
    return median(seconds)
