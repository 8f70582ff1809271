"""What this machine can do, measured: matrix products, memory, and the price of an operation that does nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from calm.plan.shapes import Cost
from calm.training.throughput import gemm_flops

COPIED = 64 * 2**20  # bytes; far more than a cache holds
EMPTY = 2000  # operations on one number
RUNS = 5


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
    def measured(dtype: torch.dtype) -> Machine:
        """Best of a few runs each, for float32 and `dtype`."""
        cpu, threads = torch.device("cpu"), torch.get_num_threads()
        flops = {kind: gemm_flops(cpu, kind, threads) for kind in {torch.float32, dtype}}
        source, target = torch.ones(COPIED // 4), torch.empty(COPIED // 4)
        bandwidth = 2 * COPIED / _best(lambda: target.copy_(source))
        return Machine(flops, bandwidth, _best(_empty_operations) / (2 * EMPTY))

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


def _best(action: Callable[[], object]) -> float:
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
