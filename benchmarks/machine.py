"""What this machine can do, measured: matrix products, memory, and the price of an operation that does nothing.

In seconds of processor time, shared out over the threads: on a machine that others use too, the clock on the wall
measures them. Threads that wait must sleep for that (`OMP_WAIT_POLICY=passive`): spinning is processor time too.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from statistics import median
from typing import Any, NamedTuple

import torch

from calm.plan.shapes import Trace, tensors

COPIED = 64 * 2**20  # bytes; far more than a cache holds
FRESH = 32 * 2**20  # bytes of a tensor from which glibc's malloc takes it from the system, which zeroes page by page
TURNS = 64  # small matrices that take turns, at most
EMPTY = 2000  # operations on one number
RUNS = 9
PRODUCT_RUNS = 3  # each of many calls


class Matrix(NamedTuple):
    """One operand of a product, as it lies in memory: a transposed one has other strides and another speed."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class Product(NamedTuple):
    """A matrix product: one of `PRODUCTS` and what it is given."""

    name: str
    operands: tuple[Matrix, ...]


class Operation(NamedTuple):
    """One operation: floating-point operations (a multiplication and an addition are two), bytes read and written."""

    name: str
    flops: int
    moved: int
    dtype: torch.dtype | None  # of what it makes
    made: int = 0  # bytes that it takes for that
    product: Product | None = None


PRODUCTS = ("mm", "addmm", "bmm")  # operations on tensors alone: they can be repeated by their operands' shapes


class Operations(Trace):
    """A trace that keeps every operation, in order."""

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__(known)
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flops, made = self.flops, self.made
        found = super().__torch_dispatch__(func, types, args, kwargs)
        outputs = list(tensors((found,)))
        touched = [] if _is_view(func) else [*tensors(args), *tensors((kwargs or {}).values()), *outputs]
        moved = sum(tensor.numel() * tensor.element_size() for tensor in touched)
        name = func._overloadpacket.__name__
        product = Product(name, _matrices(args)) if name in PRODUCTS else None
        dtype = outputs[0].dtype if outputs else None
        self.operations.append(Operation(name, self.flops - flops, moved, dtype, self.made - made, product))
        return found


def _matrices(operands: Iterable[Any]) -> tuple[Matrix, ...]:
    return tuple(Matrix(tuple(tensor.shape), tensor.stride(), tensor.dtype) for tensor in tensors(operands))


@cache
def _is_view(func: Any) -> bool:
    """True of operations that give another look at the same memory and move nothing."""
    if func is torch.ops.aten._unsafe_view.default:  # its schema does not say so
        return True
    aliases = [returned.alias_info for returned in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


@dataclass(frozen=True)
class Machine:
    """Rates of this process with the threads that it has.

    Attributes:
        flops: a second, by number format, in a large product: the peak.
        bandwidth: bytes read and written a second.
        fresh: the same when what is written is memory that the system has just given.
        overhead: seconds that any operation takes, forward or backward.
        products: seconds of single products, by what they are given.
    """

    flops: dict[torch.dtype, float]
    bandwidth: float
    fresh: float
    overhead: float
    products: dict[Product, float] = field(default_factory=dict)

    @staticmethod
    def measured(dtype: torch.dtype, shape: tuple[int, int, int], products: Collection[Product] = ()) -> Machine:
        """Median of a few runs each, for float32 and `dtype`.

        Args:
            shape: of the layer (rows, inputs, outputs) whose products tell the peak.
            products: that are timed one by one: those of few columns, as LoRA's, are far from any peak.
        """
        flops = {kind: _peak(kind, *shape) for kind in dict.fromkeys((torch.float32, dtype))}
        source, target = torch.ones(COPIED // 4), torch.empty(COPIED // 4)
        bandwidth = 2 * COPIED / _seconds(lambda: target.copy_(source))
        fresh = 2 * COPIED / _seconds(lambda: _new_memory(COPIED).copy_(source))
        overhead = _seconds(_empty_operations) / (2 * EMPTY)
        return Machine(flops, bandwidth, fresh, overhead, {product: product_seconds(product) for product in products})

    def roofline(self, cost: Operations) -> float:
        """The least seconds: every operation at the peak or at the bandwidth, whichever is slower."""
        return sum(self._least(operation, self.bandwidth) for operation in cost.operations)

    def predicted(self, cost: Operations, trained_bytes: int) -> float:
        """Seconds of a step: its operations, and clipping and Adam over the weights."""
        passes = 12  # reads and writes of a weight's size: norm, scale, two moments, the update
        return sum(map(self.seconds, cost.operations)) + passes * trained_bytes / self.bandwidth

    def seconds(self, operation: Operation) -> float:
        """Of one operation: as measured if it is one of `products`, else its roofline; and the overhead."""
        known = self.products.get(operation.product) if operation.product else None
        if known is None:
            known = self._least(operation, self.fresh if operation.made > FRESH else self.bandwidth)
        return known + self.overhead

    def _least(self, operation: Operation, bandwidth: float) -> float:
        fallback = self.flops[torch.float32]
        peak = self.flops.get(operation.dtype, fallback) if operation.dtype else fallback
        return max(operation.flops / peak, operation.moved / bandwidth)

    def __str__(self) -> str:
        peaks = ", ".join(f"{rate / 1e9:.0f} GFLOP/s {str(kind)[6:]}" for kind, rate in self.flops.items())
        memory = f"{self.bandwidth / 1e9:.1f} GB/s ({self.fresh / 1e9:.1f} fresh)"
        return f"{peaks}, {memory}, {self.overhead * 1e6:.1f} us an operation"


@torch.no_grad()
def product_seconds(product: Product) -> float:
    """Of one call, when its last operand comes from memory.

    A step goes through the weights of all layers before it comes back to one. A matrix that is used again and again
    would stay in the cache and promise too much, so as many take turns here as no cache holds.
    """
    *others, last = product.operands
    number = max(2, min(TURNS, math.ceil(COPIED / (math.prod(last.size) * last.dtype.itemsize))))
    given, turns = [_filled(matrix) for matrix in others], [_filled(last) for _ in range(number)]
    action = getattr(torch.ops.aten, product.name)

    def each_once() -> None:
        for matrix in turns:
            action(*given, matrix)

    each_once()
    return _seconds(each_once, PRODUCT_RUNS) / number


def _peak(dtype: torch.dtype, rows: int, inputs: int, outputs: int) -> float:
    """FLOPs a second of a layer's two large products: y = x W^T and dx = dy W."""
    states, gradient = Matrix((rows, inputs), (inputs, 1), dtype), Matrix((rows, outputs), (outputs, 1), dtype)
    weight = Matrix((outputs, inputs), (inputs, 1), dtype)
    forward = product_seconds(Product("mm", (states, Matrix((inputs, outputs), (1, inputs), dtype))))
    backward = product_seconds(Product("mm", (gradient, weight)))
    return 2 * 2 * rows * inputs * outputs / (forward + backward)


def _filled(matrix: Matrix) -> torch.Tensor:
    return torch.empty_strided(matrix.size, matrix.stride, dtype=matrix.dtype).fill_(1.0)


def _new_memory(size: int) -> torch.Tensor:
    return torch.frombuffer(mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS), dtype=torch.float32)


def _empty_operations() -> None:
    value = torch.ones(1, requires_grad=True)
    for _ in range(EMPTY):
        value = value * 1.0
    value.backward()


def use_threads(number: int) -> None:
    """Let this process have so many threads.

    Raises:
        SystemExit: they would spin while they wait.
    """
    if number > 1 and os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive":
        raise SystemExit("start this with OMP_WAIT_POLICY=passive: threads that spin use processor time too")
    torch.set_num_threads(number)


def processor_seconds() -> float:
    """Processor time of this process so far, for each of its threads."""
    return time.process_time() / torch.get_num_threads()


def _seconds(action: Callable[[], object], runs: int = RUNS) -> float:
    seconds = []
    for _ in range(runs):
        started = processor_seconds()
        action()
        seconds.append(processor_seconds() - started)
    return median(seconds)
