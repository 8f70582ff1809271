"""Attention where transformers' own choice is not the fastest, and keys and values that several prompts go on from."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from calm.model.modeling import CalmForConditionalGeneration

_GROUPED = "sdpa_grouped"


def _grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """`sdpa` for inference on a processor: (B, L, heads, width), from queries (B, heads, L, width).

    Where heads share keys and values and there is a mask, transformers copies both for every head: CUDA's kernels ask
    for it. The processor's kernel reads them where they are.
    """
    if attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **others)
    output = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attention_mask, scale=scaling, enable_gqa=True
    )
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(_GROUPED, _grouped_attention)
AttentionMaskInterface.register(_GROUPED, sdpa_mask)


def masked_attention(part: PreTrainedModel) -> str:
    """The attention that serves a part of a model best where prompts need a mask."""
    return _GROUPED if part.device.type == "cpu" else str(part.config._attn_implementation)


@contextmanager
def attending(part: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Another attention for one part of a model, until the block ends."""
    before = part.config._attn_implementation
    part.set_attn_implementation(implementation)
    try:
        yield
    finally:
        part.set_attn_implementation(before)


def use_plain_attention(model: CalmForConditionalGeneration) -> None:
    """For training on a processor: prompts are short, and there the fused kernel's backward pass is the slower one."""
    if model.device.type == "cpu":
        model.language_model.set_attn_implementation("eager")


class SharedPrefix(Cache):
    """The beginning of a prompt, read once: any batch of prompts goes on from it and leaves nothing behind.

    A layer's keys and values (B, heads, S + L, width) exist while that layer is computed and no longer, however many
    prompts and layers there are.
    """

    def __init__(self, read: Cache) -> None:
        super().__init__(layers=read.layers)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The prefix' keys and values, then the batch's own (B, heads, L, width); the prefix stays as it was."""
        layer = copy.copy(self.layers[layer_idx])
        layer.keys = layer.keys.expand(len(key_states), -1, -1, -1)
        layer.values = layer.values.expand(len(value_states), -1, -1, -1)
        found: tuple[torch.Tensor, torch.Tensor] = layer.update(key_states, value_states, *args, **kwargs)
        return found
