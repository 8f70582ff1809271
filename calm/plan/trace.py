"""What a piece of model code would cost: FLOPs, bytes moved, and the memory it holds at its peak.

Code is run on the meta device, where tensors have shapes and no values, so that a model of any size is measured in
seconds on any machine. The same trace counts a real run, which is how the tests hold the two together.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


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


class Trace(TorchDispatchMode):
    """Counts every operation inside its block.

    Memory is counted by storages: those of `known` tensors (weights, gradients that are there already) are not, all
    others from the operation that makes them to the moment when nothing refers to them any more, autograd included.

    Attributes:
        operations: in order.
        peak: bytes held at once, at most.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.peak = 0
        self._live = 0
        self._seen: Any = WeakIdKeyDictionary()
        for tensor in known:
            self._seen[tensor.untyped_storage()] = None

    @property
    def flops(self) -> int:
        """Of all operations."""
        return sum(operation.flops for operation in self.operations)

    @property
    def moved(self) -> int:
        """Bytes read and written by all operations."""
        return sum(operation.moved for operation in self.operations)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        outputs = list(_tensors((found,)))
        counter = flop_registry.get(func._overloadpacket)
        flops = counter(*args, **kwargs, out_val=found) if counter else 0
        touched = [] if _is_view(func) else [*_tensors(args), *_tensors(kwargs.values()), *outputs]
        moved = sum(tensor.numel() * tensor.element_size() for tensor in touched)
        dtype = outputs[0].dtype if outputs else None
        name = func._overloadpacket.__name__
        product = Product(name, _matrices(args)) if name in PRODUCTS else None
        made = sum(self._hold(output.untyped_storage()) for output in outputs)
        self.operations.append(Operation(name, flops, moved, dtype, made, product))
        return found

    def _hold(self, storage: torch.UntypedStorage) -> int:
        if storage in self._seen:
            return 0
        self._seen[storage] = None
        size = storage.nbytes()
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._release, size)
        return size

    def _release(self, size: int) -> None:
        self._live -= size


PRODUCTS = ("mm", "addmm", "bmm")  # operations on tensors alone: they can be repeated by their operands' shapes
FUSED = "calm_fused"  # in transformers' table of attention functions


def fused_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **_: Any
) -> tuple[torch.Tensor, None]:
    """Attention as kernels of GPUs do it: queries, keys, values and the output are kept, probabilities are not.

    On the meta device torch would run the plain algorithm, whose probabilities take more memory than all else.

    Args:
        query: (B, heads, L, width of a head); key and value with as many heads or a divisor of them.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, 1) if groups > 1 else tensor for tensor in (key, value))
    output = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    return output.transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(FUSED, fused_attention)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Those among an operation's arguments or results, lists of them included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _matrices(operands: Iterable[Any]) -> tuple[Matrix, ...]:
    return tuple(Matrix(tuple(tensor.shape), tensor.stride(), tensor.dtype) for tensor in _tensors(operands))


@cache
def _is_view(func: Any) -> bool:
    """True of operations that give another look at the same memory and move nothing."""
    if func is torch.ops.aten._unsafe_view.default:  # its schema does not say so
        return True
    aliases = [returned.alias_info for returned in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)
