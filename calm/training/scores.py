"""What S learns of scores: whose they are, how often each public is seen, and the phase before the language model's.

Each dataset's raters are a public with a taste of their own, and some are few.

S begins without the language model: the MFAM and the score head's visual part learn to score. Chosen here
(docs/paper.md): a step takes milliseconds instead of seconds, and the language model then starts from visual tokens
that tell good photographs from bad ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from calm.io import sha256_file
from calm.layout import Layout
from calm.model.build import ADAPTER, TRAINED, Assembly, read_trained, save_trained
from calm.model.modeling import CalmForConditionalGeneration
from calm.params import Params
from calm.training.features import Features, keys_of
from calm.training.loop.engine import Run, finish, train
from calm.training.loop.order import WHOLE, Order, Part
from calm.training.settings import Strategy, VisualScores
from calm.training.tuning import numbers, numbers_of_publics

PERCENTILES = range(101)  # of the scores that a public gave


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


class VisualScoreObjective:
    """Squared error of the visual part in half-scales.

    Args:
        parameters: what is trained.
        rows: scored training rows (INSTRUCTION), each about one photograph.
    """

    def __init__(
        self,
        assembly: Assembly,
        features: Features,
        parameters: Mapping[str, torch.nn.Parameter],
        rows: pd.DataFrame,
        options: VisualScores,
        seed: int,
        name: str,
    ) -> None:
        self.model, self.features, self.parameters = assembly.model, features, parameters
        self.keys = [first for first, *_ in keys_of(rows)]
        config = assembly.model.config
        half = (config.score_max - config.score_min) / 2
        self.publics = numbers_of_publics(rows, config)
        self.targets = (numbers(rows["score"], torch.device("cpu")) - config.score_min) / half - 1
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
    options, balance = params.finetune.scores.visual, params.finetune.scores.balance
    model = assembly.model
    trained = visual_parameters(model)
    features = Features.of(assembly, rows["dataset"], params.runtime, layout)
    scored = balanced(rows[rows["score"].notna()], balance)
    objective = VisualScoreObjective(assembly, features, trained, scored, options, params.seed, f"{label}-visual")
    instructions = layout.instructions / "scores.parquet"
    inputs = [params.runtime.model_dump(), balance, sha256_file(start / TRAINED), sha256_file(instructions)]
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
