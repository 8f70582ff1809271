"""The language model's own words for attribute states, as rows of its embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from calm.attributes.taxonomy import Taxonomy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOTHING = " nothing;"
FILLER = "\n"


def word_ids(
    tokenizer: PreTrainedTokenizerBase, known: Taxonomy, table: Sequence[Sequence[str]], length: int
) -> list[list[int]]:
    """Token ids of the noun that names each state (" visible noise;"), then of nothing: `length` each.

    Shorter ones are filled from the front, so that a state's words stand together.

    Raises:
        ValueError: every noun of a state is longer; the message says which, and what length it needs.
    """
    filler = tokenizer(FILLER, add_special_tokens=False).input_ids[-1:]
    nothing = tokenizer(NOTHING, add_special_tokens=False).input_ids
    found = []
    for _, attribute, state in table:
        of_state = known.attribute(attribute).state(state)
        nouns = [tokenizer(f" {noun};", add_special_tokens=False).input_ids for noun in of_state.nouns]
        fitting = [ids for ids in nouns if len(ids) <= length]
        if not fitting:
            raise ValueError(
                f"mfam.words.tokens: {length} are too few for '{state}' of '{attribute}', "
                f"which takes {min(map(len, nouns))}"
            )
        found.append(fitting[0])
    return [filler * (length - len(ids)) + ids for ids in (*found, nothing[:length])]


def embedded(ids: Sequence[Sequence[int]], embedding: torch.nn.Module) -> torch.Tensor:
    """(words, length, D) float32."""
    found: torch.Tensor = embedding(torch.tensor(ids, device=next(embedding.parameters()).device))
    return found.float()
