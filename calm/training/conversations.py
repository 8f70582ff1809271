"""Prompts and answers to padded token batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from calm.model.modeling import IGNORED
from calm.model.processing import CalmProcessor, is_score, number_prefix


@dataclass(frozen=True)
class Batch:
    """Right-padded conversations.

    Attributes:
        input_ids, attention_mask, labels: (B, L); labels are -100 outside the answers.
        prompt_ends: (B,), position of the last prompt token: where the model decides on its answer.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    prompt_ends: torch.Tensor


def collate(
    processor: CalmProcessor, conversations: Sequence[Sequence[Mapping[str, str]]], answers: Sequence[str]
) -> Batch:
    """Tokenise user messages and answers."""
    tokenizer = processor.tokenizer
    prompts = [
        tokenizer(processor.prompt([dict(m) for m in messages], score=is_score(answer))).input_ids
        for messages, answer in zip(conversations, answers, strict=True)
    ]
    learned = [[*processor.answer_ids(answer), tokenizer.eos_token_id] for answer in answers]
    length = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, learned, strict=True))
    shape = (len(prompts), length)
    ids = torch.full(shape, tokenizer.pad_token_id)
    mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for row, (prompt, answer, said) in enumerate(zip(prompts, learned, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        mask[row, :end] = 1
        labels[row, len(prompt) : end] = torch.tensor(answer)
        if is_score(said) and number_prefix(tokenizer):  # what `generate` has to say itself before the first digit
            labels[row, len(prompt) - 1] = prompt[-1]
    return Batch(ids, mask, labels, torch.tensor([len(prompt) - 1 for prompt in prompts]))
