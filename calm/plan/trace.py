"""What a piece of model code would cost: FLOPs, and the memory it holds at its peak.

Code is run on the meta device, where tensors have shapes and no values, so that a model of any size is measured in
seconds on any machine. The same trace counts a real run, which is how the tests hold the two together.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class Trace(TorchDispatchMode):
    """Counts what is computed inside its block.

    Memory is counted by storages: those of `known` tensors (weights, gradients that are there already) are not, all
    others from the operation that makes them to the moment when nothing refers to them any more, autograd included.

    Attributes:
        flops: of all operations; a multiplication and an addition are two.
        made: bytes that operations have taken, whether or not they are held any more.
        peak: bytes held at once, at most.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.flops = self.made = self.peak = self._live = 0
        self._seen: Any = WeakIdKeyDictionary()
        for tensor in known:
            self._seen[tensor.untyped_storage()] = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        counter = flop_registry.get(func._overloadpacket)
        if counter is not None:
            self.flops += counter(*args, **kwargs, out_val=found)
        for output in tensors((found,)):
            self._hold(output.untyped_storage())
        return found

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen[storage] = None
        size = storage.nbytes()
        self.made += size
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self._live -= size


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


def tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Those among an operation's arguments or results, lists of them included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)
