"""Attention of calm's own choice gives transformers' numbers; a shared prefix stays as it was read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel, PreTrainedModel

from calm.model.attention import SharedPrefix, attending, masked_attention

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(params=["llama", "mistral_with_a_window"])
def model(request: pytest.FixtureRequest) -> Iterator[PreTrainedModel]:
    torch.manual_seed(0)
    made: PreTrainedModel
    if request.param == "llama":
        made = LlamaModel(LlamaConfig(**SIZES))
    else:
        made = MistralModel(MistralConfig(**SIZES, sliding_window=5))
    with torch.inference_mode():
        yield made.eval()


def states(model: PreTrainedModel, ids: torch.Tensor, **inputs: object) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=ids, **inputs).last_hidden_state
    return found


@pytest.mark.parametrize("length", [1, 9])
@pytest.mark.parametrize("padded", [False, True])
def test_heads_that_share_keys_give_the_plain_attentions_numbers(
    model: PreTrainedModel, length: int, padded: bool
) -> None:
    ids = torch.randint(64, (3, length))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, length // 2 + 1 :] = 0
    with attending(model, "eager"):
        plain = states(model, ids, attention_mask=mask)
    with attending(model, masked_attention(model)):
        assert model.config._attn_implementation == "sdpa_grouped"
        torch.testing.assert_close(states(model, ids, attention_mask=mask)[mask > 0], plain[mask > 0])


def test_any_number_of_prompts_go_on_from_one_prefix(model: PreTrainedModel) -> None:
    prefix, ends = torch.randint(64, (1, 7)), torch.randint(64, (5, 4))
    whole = states(model, torch.cat([prefix.expand(5, -1), ends], dim=1))[:, 7:]
    shared = SharedPrefix(model(input_ids=prefix, use_cache=True).past_key_values)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in shared.layers]
    with attending(model, masked_attention(model)):
        parts = [states(model, part, past_key_values=shared, use_cache=True) for part in ends.split(2)]
    torch.testing.assert_close(torch.cat(parts), whole)
    for layer, (keys, values) in zip(shared.layers, before, strict=True):
        assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)


def test_the_usual_attention_is_back_after_an_error(model: PreTrainedModel) -> None:
    usual = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="of the block"), attending(model, "eager"):
        raise RuntimeError("of the block")
    assert model.config._attn_implementation == usual
