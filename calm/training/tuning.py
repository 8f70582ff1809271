"""Objectives on instructions: G (alignment) and the two processes of fine-tuning, C and S.

A row of instructions is a prompt about photographs and its answer. Where it is a score, it is that of a public
(`calm.training.scores`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from calm.model.build import Assembly
from calm.model.configuration import CalmConfig
from calm.model.modeling import IGNORED
from calm.model.processing import CalmProcessor, is_score, number_prefix
from calm.model.readouts import decimal_targets, digit_targets
from calm.seeds import stream
from calm.training.features import Features, keys_of
from calm.training.loop.order import WHOLE, Order, Part
from calm.training.settings import FinetuneScores, Optimisation


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

    def inputs(self, device: torch.device) -> dict[str, torch.Tensor]:
        """What the model is called with, there."""
        return {name: getattr(self, name).to(device) for name in ("input_ids", "attention_mask", "labels")}


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


class InstructionObjective:
    """Language-model loss of the answers; where a row has a score, the regression readout's squared error too."""

    def __init__(
        self,
        assembly: Assembly,
        features: Features,
        rows: pd.DataFrame,
        parameters: Mapping[str, torch.nn.Parameter],
        options: Optimisation,
        seed: int,
        name: str,
    ) -> None:
        self.assembly, self.model, self.features, self.parameters = assembly, assembly.model, features, parameters
        scores = options if isinstance(options, FinetuneScores) else None
        self.regression_weight = scores.regression.weight if scores else 0.0
        self.spread, self.decimal_spread = (scores.spread, scores.decimal_spread) if scores else (0.0, 0.0)
        self.rows = rows.reset_index(drop=True)
        self.keys, self.told = keys_of(rows), _told(rows, assembly.model.config.attribute_states)
        self._publics = numbers_of_publics(rows, assembly.model.config)
        lengths = [len(answer) for answer in self.rows["answer"]]
        self.order = Order(len(self.rows), options.batch_size, seed, name, lengths)
        features.prepare(key for of_row in self.keys for key in of_row)

    def read(self, step: int, part: Part) -> torch.Tensor | None:
        """The photographs of a part of a step's rows, where their features are not kept."""
        everyone = self.order(step)
        keys = [key for i in everyone[part.slice(len(everyone))] for key in self.keys[i]]
        return self.features.read(keys)

    def losses(self, step: int, part: Part = WHOLE, read: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """What a part of a step's rows contributes to its losses, and to the share of its tokens that is padding."""
        model, everyone = self.model, self.order(step)
        picked = everyone[part.slice(len(everyone))]
        chosen = self.rows.iloc[picked]
        answers, targets = self._answers(chosen, self._draws(step)[part.slice(len(everyone))])
        batch = collate(self.assembly.processor, [list(messages) for messages in chosen["messages"]], answers)
        keys = [key for i in picked for key in self.keys[i]]
        tokens = self.features(keys) if read is None else self.assembly.encode(read)
        output = model(
            **batch.inputs(model.device),
            **targets,
            visual_tokens=model.mfam(tokens, told=[rows for i in picked for rows in self.told[i]]),
            score_positions=batch.prompt_ends.to(model.device),
            publics=self._publics[picked],
        )
        losses = {"language": output.loss / part.of}
        total = losses["language"]
        if self.regression_weight:
            rated = int(self.rows["score"].iloc[everyone].notna().sum())
            losses["regression"] = self._regression(output.score_parts, chosen["score"], rated)
            total = total + self.regression_weight * losses["regression"]
        padding = 1 - batch.attention_mask.to(total).mean()
        return {"loss": total, **losses, "padding": padding / part.of}

    def _draws(self, step: int) -> np.ndarray:
        """Numbers from 0 to 1, one for each row of a step, (B,)."""
        return stream(self.order.seed, self.order.name, "whole numbers", step).random(self.order.batch_size)

    def _answers(self, rows: pd.DataFrame, draws: np.ndarray) -> tuple[list[str], dict[str, torch.Tensor]]:
        """The rows' answers, and what digits of scores are taught beside what the answers say.

        A decimal is taught after whole numbers that are drawn (by `draws`, (B,) in 0..1) as they are taught themselves:
        asked by people, the model has to go on from its own whole number, which need not be the true one.
        """
        answers, scores = list(rows["answer"]), numbers(rows["score"], self.model.device)
        if not self.spread:
            return answers, {}
        shares = digit_targets(scores, self.spread)
        if not self.decimal_spread:
            return answers, {"digit_targets": shares}
        wholes = (1 + (shares.cumsum(1) < torch.from_numpy(draws).to(shares).unsqueeze(1)).sum(1)).clamp_max(9)
        told = zip(answers, wholes.tolist(), shares[:, 0].isnan().tolist(), strict=True)
        answers = [answer if other else f"{whole}{answer[answer.index('.') :]}" for answer, whole, other in told]
        return answers, {
            "digit_targets": shares,
            "decimal_targets": decimal_targets(scores, wholes, self.decimal_spread),
        }

    def _regression(self, predicted: torch.Tensor, scores: pd.Series, count: int) -> torch.Tensor:
        """Squared error in half-scales of each part (B, parts) over the rows that have a score.

        The mean over parts and rows, as a share of the mean over `count` rows.
        """
        config = self.model.config
        target = numbers(scores, predicted.device)
        rated = ~target.isnan()
        if not rated.any():
            return predicted.sum() * 0
        half = (config.score_max - config.score_min) / 2
        return ((predicted[rated] - target[rated].unsqueeze(1)) / half).square().mean() * (int(rated.sum()) / count)


def _told(rows: pd.DataFrame, table: Sequence[Sequence[str]]) -> list[list[list[int] | None]]:
    """Rows of the table's states that each photograph of a row is told to have; None: what is recognised in it."""
    place = {f"{attribute}: {state}": number for number, (_, attribute, state) in enumerate(table)}
    found: list[list[list[int] | None]] = []
    for labels, item_ids in zip(rows["told"], rows["item_ids"], strict=True):
        known = None if labels is None else [place[label] for label in labels if label in place]
        found.append([known] * len(item_ids))
    return found


def numbers_of_publics(rows: pd.DataFrame, config: CalmConfig) -> torch.Tensor:
    """Place among `config.publics` of each row's raters (B,)."""
    return torch.tensor([config.public(name) for name in rows["dataset"]])


def numbers(column: pd.Series, device: torch.device) -> torch.Tensor:
    """(B,) float32, there; NaN for what is null."""
    return torch.tensor(column.to_numpy(dtype="float32"), device=device)
