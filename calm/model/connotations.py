"""Connotations of the classes that a visual encoder recognises: what the language model has to say of each of them.

A small encoder knows a beach from a dustbin; the language model knows that people call the one serene and the other
dirty. The log-likelihood of such words, averaged over several ways of leading up to them, is a source of content
(`calm.model.sources`). Chosen here: docs/paper.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import torch
from ruamel.yaml import YAML

from calm.model.parts.pretrained import Language

READ_AT_ONCE = 64


@dataclass(frozen=True)
class Vocabulary:
    """Sentences that break off before a word, with {} for the class, and the words."""

    templates: tuple[str, ...]
    words: tuple[str, ...]


@cache
def vocabulary() -> Vocabulary:
    """As connotations.yaml says."""
    text = resources.files("calm.model").joinpath("connotations.yaml").read_text(encoding="utf-8")
    found = YAML(typ="safe").load(text)
    return Vocabulary(tuple(found["templates"]), tuple(found["words"]))


@torch.inference_mode()
def connotations(language: Language, classes: Sequence[str], said: Vocabulary) -> torch.Tensor:
    """Log-likelihood of every word's first token after a class, mean over the templates: (classes, words) float32.

    Of a class with several names, "tench, Tinca tinca", the first is asked for.
    """
    names = [name.split(",")[0] for name in classes]
    first = [language.tokenizer(f" {word}", add_special_tokens=False).input_ids[0] for word in said.words]
    found = torch.zeros(len(names), len(first))
    for template in said.templates:
        found += _log_likelihoods(language, [template.format(name) for name in names], first)
    return found / len(said.templates)


def _log_likelihoods(language: Language, prompts: Sequence[str], tokens: Sequence[int]) -> torch.Tensor:
    """Of each of the tokens as the next one: (prompts, tokens) float32. Prompts of like length are read together."""
    ids = [language.tokenizer(prompt).input_ids for prompt in prompts]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    found = torch.zeros(len(ids), len(tokens))
    for start in range(0, len(order), READ_AT_ONCE):
        rows = order[start : start + READ_AT_ONCE]
        # Padded on the right: under a causal mask, what follows the last word changes nothing before it.
        last = torch.tensor([len(ids[row]) - 1 for row in rows])
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids[row]) for row in rows], batch_first=True)
        read = language.model.model(input_ids=padded.to(language.model.device), use_cache=False)
        states = read.last_hidden_state[torch.arange(len(rows)), last]
        found[rows] = language.model.lm_head(states).float().log_softmax(-1)[:, list(tokens)].cpu()
    return found
