"""A Llama model and its tokenizer out of a GGUF file, de-quantised into plain transformers classes.

transformers' own `gguf_file=` keeps the packed weights, which can be neither trained nor saved.
"""

from __future__ import annotations

import sys
from functools import cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, GGUFValueType, ReaderTensor
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

CONTROL_TOKEN = 3  # GGUF's token type
UNPACKED_ROWS = 64  # that a tensor is laid out in before it is unpacked: more would take more memory at a time

TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
BLOCK_TENSORS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class _Reader(GGUFReader):
    """GGUFReader on a plain array: slicing the memory map it makes costs seconds for a vocabulary."""

    @property
    def data(self) -> Any:
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        self._data = np.asarray(value)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        """Lists at once: the package makes arrays of each of a vocabulary's 150,000 entries, which takes a second."""
        if raw_type != GGUFValueType.ARRAY or self.byte_order != "I":
            return super()._get_field_parts(orig_offs, raw_type)
        kind, count = GGUFValueType(self._get(orig_offs, np.uint32)[0]), int(self._get(orig_offs + 4, np.uint64)[0])
        start = end = orig_offs + 12
        if kind in self.gguf_scalar_to_np:
            entries = [self._get(start, self.gguf_scalar_to_np[kind], count)]
            end += entries[0].nbytes
        elif kind == GGUFValueType.STRING:
            entries = []
            for _ in range(count):
                first = end + 8
                end = first + int.from_bytes(self._data[end:first].tobytes(), sys.byteorder)
                entries.append(self._data[first:end])
        else:
            return super()._get_field_parts(orig_offs, raw_type)
        return end - orig_offs, entries, list(range(len(entries))), [GGUFValueType.ARRAY, kind]


@torch.no_grad()
def load(path: Path, dtype: torch.dtype) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Read model and tokenizer.

    Raises:
        ValueError: the file holds another architecture, tensors that a Llama model does not have, or lacks some.
    """
    reader, fields, config = _opened(path)
    packed, tokenizer = reader.tensors, _tokenizer(fields)
    del reader, fields  # a vocabulary's strings, as the package keeps them, take 60 MB
    with no_init_weights():  # every weight is read from the file; drawing them first would take seconds
        # not `.to(dtype)`, which would round the frequencies of positions too
        model = LlamaForCausalLM._from_config(config, dtype=dtype)
    model.tie_weights()
    places = dict(model.named_parameters())  # of weights that are tied, the first
    for tensor in packed:
        name, values = _name(tensor.name, path), _values(tensor, path)
        if name.endswith("q_proj.weight"):
            values = _unpermute(values, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
            values = _unpermute(values, config.num_key_value_heads)
        place = places.pop(name, None)
        if place is None or place.shape != values.shape:
            raise ValueError(f"{path}: tensor '{tensor.name}' {values.shape} is not of the model that the file tells")
        place.copy_(torch.from_numpy(values))  # one by one, so that the model is never there twice
    if places:
        raise ValueError(f"{path}: the tensor for '{min(places)}' is missing")
    return model.eval(), tokenizer


def _values(tensor: ReaderTensor, path: Path) -> np.ndarray:
    """A tensor's numbers, in memory of their own.

    Read from the file, not through the package's map of it, whose pages would stay in memory. The package unpacks
    sixteen rows at a time, and no packed number reaches over a row's end: laid end to end, short rows take a third of
    the time.
    """
    shape, kind = tensor.data.shape, tensor.data.dtype
    packed = np.fromfile(path, kind, tensor.data.size, offset=int(tensor.data_offset)).reshape(shape)
    long = packed.reshape(gcd(len(packed), UNPACKED_ROWS), -1) if packed.ndim > 1 else packed
    values: np.ndarray = dequantize(long, tensor.tensor_type).reshape(*tensor.shape[::-1])
    return values


@cache
def read_config(path: Path) -> LlamaConfig:
    """The model's configuration alone."""
    return _opened(path)[2]


def _opened(path: Path) -> tuple[GGUFReader, dict[str, Any], LlamaConfig]:
    """The file, what it says of the model, and the configuration that follows."""
    reader = _Reader(path)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    if fields.get("general.architecture") != "llama":
        raise ValueError(f"{path}: expected a Llama model, found {fields.get('general.architecture')!r}")
    config = LlamaConfig(
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": float(fields["llama.rope.freq_base"])},
        tie_word_embeddings="output.weight" not in {tensor.name for tensor in reader.tensors},
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
    )
    return reader, fields, config


def _name(tensor: str, path: Path) -> str:
    if tensor in TENSORS:
        return TENSORS[tensor]
    parts = tensor.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in BLOCK_TENSORS:
        return f"model.layers.{parts[1]}.{BLOCK_TENSORS[parts[2]]}.{parts[3]}"
    raise ValueError(f"{path}: tensor '{tensor}' is not part of a Llama model")


def _unpermute(values: np.ndarray, heads: int) -> np.ndarray:
    """GGUF interleaves the two halves that rotary embeddings turn; transformers keeps them apart."""
    rows, columns = values.shape
    halves = values.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _tokenizer(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits ("smollm" in GGUF's terms): digits apart, so a score is read digit by digit."""
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {f"{role}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"]] for role, key in roles.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=fields["llama.context_length"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **special,
    )
