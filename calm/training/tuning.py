"""Objectives on instructions: G (alignment) and the two processes of fine-tuning, C and S.

A row of instructions is a prompt about photographs and its answer. Where it is a score, it is that of a public: each
dataset's raters have a taste of their own, and some are few.

S begins without the language model: the MFAM and the score head's visual part learn to score. Chosen here
(docs/paper.md): a step takes milliseconds instead of seconds, and the language model then starts from visual tokens
that tell good photographs from bad ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from calm.io import sha256_file
from calm.layout import Layout
from calm.model.build import ADAPTER, TRAINED, Assembly, read_trained, save_trained
from calm.model.modeling import IGNORED, CalmForConditionalGeneration
from calm.model.processing import CalmProcessor, is_score, number_prefix
from calm.model.readouts import decimal_targets, digit_targets
from calm.params import Params
from calm.seeds import stream
from calm.training.features import Features, Key
from calm.training.loop.engine import Run, finish, train
from calm.training.loop.order import WHOLE, Order, Part
from calm.training.settings import FinetuneScores, Optimisation, Strategy, VisualScores

PERCENTILES = range(101)  # of the scores that a public gave


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
        self._publics = torch.tensor([assembly.model.config.public(dataset) for dataset in rows["dataset"]])
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
        answers, scores = list(rows["answer"]), _numbers(rows["score"], self.model.device)
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
        target = _numbers(scores, predicted.device)
        rated = ~target.isnan()
        if not rated.any():
            return predicted.sum() * 0
        half = (config.score_max - config.score_min) / 2
        return ((predicted[rated] - target[rated].unsqueeze(1)) / half).square().mean() * (int(rated.sum()) / count)


def keys_of(rows: pd.DataFrame) -> list[list[Key]]:
    """The photographs of each training row (INSTRUCTION); `spoilt` is null where they are as they are."""
    named = zip(rows["dataset"], rows["item_ids"], rows["spoilt"], strict=True)
    return [[(name, item, how) if isinstance(how, str) else (name, item) for item in ids] for name, ids, how in named]


def _told(rows: pd.DataFrame, table: Sequence[Sequence[str]]) -> list[list[list[int] | None]]:
    """Rows of the table's states that each photograph of a row is told to have; None: what is recognised in it."""
    place = {f"{attribute}: {state}": number for number, (_, attribute, state) in enumerate(table)}
    found: list[list[list[int] | None]] = []
    for labels, item_ids in zip(rows["told"], rows["item_ids"], strict=True):
        known = None if labels is None else [place[label] for label in labels if label in place]
        found.append([known] * len(item_ids))
    return found


def learnt_publics(rows: pd.DataFrame, order: Sequence[str]) -> list[dict[str, Any]]:
    """`CalmConfig.publics` of rated photographs or training rows (INSTRUCTION) of these datasets, in this order."""
    given = rows[rows["score"].notna()]
    if "spoilt" in given:  # scores set by rule
        given = given[given["spoilt"].isna()]
    return [
        {
            "name": name,
            "origin": ", ".join(sorted(own["origin"].unique())),
            "steps": np.percentile(own["score"], PERCENTILES).round(3).tolist(),
        }
        for name in order
        if len(own := given[given["dataset"] == name])
    ]


def balanced(rows: pd.DataFrame, balance: float) -> pd.DataFrame:
    """Training rows (INSTRUCTION), the scores of smaller publics repeated so that they are seen more often.

    Args:
        balance: a public of n photographs is seen as often as n to this power says, to a whole number of times: 1 as
            the rows are, 0 each public alike (the temperature by which multilingual models draw their languages).
    """
    scored = rows["score"].notna()
    counts = rows.loc[scored, "dataset"].value_counts()
    times = ((counts.max() / counts) ** (1 - balance)).round().astype(int) if len(counts) else counts
    repeats = rows["dataset"].map(times).where(scored, 1).astype(int)
    return rows.loc[rows.index.repeat(repeats)].reset_index(drop=True)


def _numbers(column: pd.Series, device: torch.device) -> torch.Tensor:
    return torch.tensor(column.to_numpy(dtype="float32"), device=device)


class VisualScoreObjective:
    """Squared error of the visual part in half-scales.

    Args:
        parameters: what is trained.
        keys, scores: of every training photograph, the scores on the score scale.
    """

    def __init__(
        self,
        assembly: Assembly,
        features: Features,
        parameters: Mapping[str, torch.nn.Parameter],
        keys: Sequence[Key],
        scores: Sequence[float],
        options: VisualScores,
        seed: int,
        name: str,
    ) -> None:
        self.model, self.features, self.parameters, self.keys = assembly.model, features, parameters, list(keys)
        config = assembly.model.config
        half = (config.score_max - config.score_min) / 2
        self.publics = torch.tensor([config.public(key[0]) for key in self.keys])
        self.targets = (torch.tensor(scores, dtype=torch.float32) - config.score_min) / half - 1
        self.order = Order(len(self.keys), options.batch_size, seed, name)
        features.prepare(self.keys)

    def read(self, step: int, part: Part) -> None:
        """Nothing: features are kept."""

    def losses(self, step: int, part: Part = WHOLE, read: None = None) -> dict[str, torch.Tensor]:
        """Losses of one step; this phase is run by one process alone."""
        assert part == WHOLE, "the visual phase is not shared out"
        picked = self.order(step)
        head = self.model.score_head
        head.train()  # it forgets, in a model that is otherwise as it answers
        seen = head.look(self.model.mfam(self.features([self.keys[i] for i in picked])))
        head.eval()
        seen = seen[torch.arange(len(picked)), self.publics[picked]]
        error = (seen - self.targets[picked].to(seen.device)).square().mean()
        return {"loss": error, "regression": error}


def visual_parameters(model: CalmForConditionalGeneration) -> dict[str, torch.nn.Parameter]:
    """Those that decide the visual part's score and are open for training."""
    names = ("mfam.", "score_head.visual.")
    return {n: p for n, p in model.named_parameters() if n.startswith(names) and p.requires_grad}


def begin_visual_scores(
    assembly: Assembly, rows: pd.DataFrame, start: Path, out: Path, params: Params, layout: Layout, label: str
) -> pd.DataFrame:
    """Train from the checkpoint `start` of C, loaded and opened in `assembly`, and write one like it to `out`.

    Args:
        rows: instructions to learn from; those with a score count.

    Returns:
        The learning curve.
    """
    options = params.finetune.scores.visual
    model = assembly.model
    trained = visual_parameters(model)
    rows = balanced(rows[rows["score"].notna()], params.finetune.scores.balance)
    keys = [first for first, *_ in keys_of(rows)]
    features = Features.of(assembly, rows["dataset"], params.runtime, layout)
    objective = VisualScoreObjective(
        assembly, features, trained, keys, rows["score"].tolist(), options, params.seed, f"{label}-visual"
    )
    instructions = layout.instructions / "scores.parquet"
    inputs = [params.runtime.model_dump(), sha256_file(start / TRAINED), sha256_file(instructions)]
    # One process whatever the strategy: the whole phase is a matter of seconds.
    alone = Strategy(kind="single")
    run = Run(f"{label} scores, visual part", options, alone, params.seed, layout.state(f"{label}-visual"), inputs)
    curve = train(objective, run)
    assert curve is not None
    head = [name for name in model.state_dict() if name.startswith("score_head.")]
    save_trained(out, model, {*read_trained(start), *head})
    if (start / ADAPTER).is_dir():
        shutil.copytree(start / ADAPTER, out / ADAPTER)
    finish(run)
    return curve
