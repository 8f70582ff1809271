"""One person's scores in context: their rated photographs are read once, and every further one goes on from there.

The prompt holds the rater's photographs with the scores they gave, then the photograph in question (paper: PIAA by
in-context learning). All of it but the last turn is the same for every photograph of a rater: its keys and values are
computed once. What a photograph looks like to the model is computed once too, whoever rated it (`Calm.observe`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from calm.instructions import PERSONAL_PROMPT, messages, personal_messages
from calm.model.attention import SharedPrefix, attending, masked_attention
from calm.model.mfam import LevelTokens
from calm.model.modeling import CalmForConditionalGeneration
from calm.model.processing import CalmProcessor
from calm.model.readouts import digit_shares, expectation

AT_ONCE = 4  # photographs that a processor encodes; more are no faster, and what they take would be a command's peak


class ContextError(ValueError):
    """More rated photographs than the language model can read at once; the message says how many would do."""


@dataclass(frozen=True)
class Observed:
    """N photographs as the model sees them, each looked at once.

    Attributes:
        tokens: (N, T, D), what takes the place of <image> in a prompt.
        pooled: (N, F), every source of content (`Calm.pooled_features`).
        states: (N, D), the language model's last state where the generic score is read.
        expectation, regression: (N,), the generic score by these readouts.
    """

    tokens: torch.Tensor
    pooled: NDArray[np.float32]
    states: NDArray[np.float32]
    expectation: NDArray[np.float64]
    regression: NDArray[np.float64]

    @staticmethod
    def joined(parts: Sequence[Observed]) -> Observed:
        """Several as one, in their order."""
        tokens = torch.cat([part.tokens for part in parts])
        names = ("pooled", "states", "expectation", "regression")
        return Observed(tokens, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Read:
    """What the last position of a batch of prompts says: (B, D), (B,), (B,)."""

    states: torch.Tensor
    expectation: torch.Tensor
    regression: torch.Tensor


def encoded(model: CalmForConditionalGeneration, pixels: torch.Tensor, *, mirrored: bool = True) -> LevelTokens:
    """As `model.look`, of normalised pixels (B, 3, S, S); without the mirrored photographs as `model.encode_images`."""
    read = model.look if mirrored else model.encode_images
    return LevelTokens.concatenate([read(few) for few in pixels.split(AT_ONCE if pixels.is_cpu else len(pixels))])


@torch.inference_mode()
def read_last(
    model: CalmForConditionalGeneration,
    embeddings: torch.Tensor,
    visual_tokens: torch.Tensor,
    mirrored_tokens: torch.Tensor | None = None,
    **cache: object,
) -> Read:
    """One forward pass over prompts (B, L, D) of one length, read at their last position.

    `visual_tokens` (B, T, D) are those of the photographs that are scored; `mirrored_tokens`, of the mirrored ones.
    """
    output = model.language_model.model(inputs_embeds=embeddings, **cache)
    states = output.last_hidden_state[:, -1].contiguous()
    shares = digit_shares(model.language_model.lm_head(states), model.config.digit_token_ids)
    return Read(states, expectation(shares), model.regress(states, visual_tokens, mirrored_tokens).float())


class InContext:
    """A rater's support set, read once."""

    @torch.inference_mode()
    def __init__(
        self,
        model: CalmForConditionalGeneration,
        processor: CalmProcessor,
        support: torch.Tensor,
        scores: Sequence[float],
    ) -> None:
        """Read the support set.

        Args:
            support: visual tokens (k, T, D) of the rated photographs.
            scores: what the rater gave each, on calm's scale of 1 to 10.

        Raises:
            ContextError: the prompt would be longer than the language model's context.
        """
        if len(scores) != len(support) or not len(scores):
            raise ValueError(f"expected one score for each of {len(support)} photographs, got {len(scores)}")
        self._model = model
        text = processor.prompt(personal_messages(scores), score=True)
        ids = processor.tokenizer(text, return_tensors="pt").input_ids[0].to(support.device)
        most = model.config.text_config.max_position_embeddings
        if len(ids) > most:
            each = (len(ids) - len(self._turn(processor))) // len(scores)
            raise ContextError(
                f"{len(scores)} rated photographs make a prompt of {len(ids)} positions and the language model has "
                f"{most}: at most {max(0, (most - len(self._turn(processor))) // each)} fit"
            )
        placeholders = torch.tensor(model.config.placeholder_token_ids, device=ids.device)
        places = torch.isin(ids, placeholders).nonzero().flatten()
        start = int(places[len(places) - support.shape[1]])  # of the photograph in question
        self._ids = ids[start:].unsqueeze(0)
        prefix = model.embed_prompt(ids[:start].unsqueeze(0), support)
        self._support = SharedPrefix(model.language_model.model(inputs_embeds=prefix, use_cache=True).past_key_values)

    @staticmethod
    def _turn(processor: CalmProcessor) -> list[int]:
        ids: list[int] = processor.tokenizer(processor.prompt(messages(PERSONAL_PROMPT), score=True)).input_ids
        return ids

    @torch.inference_mode()
    def score(self, tokens: torch.Tensor, batch_size: int = 16) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Expectation and regression (N,) for photographs given by their visual tokens (N, T, D)."""
        language_model = self._model.language_model
        with attending(language_model, masked_attention(language_model)):
            parts = [
                read_last(
                    self._model,
                    self._model.embed_prompt(self._ids.expand(len(batch), -1), batch),
                    batch,
                    past_key_values=self._support,
                    use_cache=True,
                )
                for batch in tokens.split(batch_size)
            ]
        return (
            torch.cat([part.expectation for part in parts]).double().cpu().numpy(),
            torch.cat([part.regression for part in parts]).double().cpu().numpy(),
        )
