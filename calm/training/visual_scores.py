"""How S begins: without the language model, the MFAM and the score head's visual part learn to score.

Chosen here (docs/paper.md): a step takes milliseconds instead of seconds, and the language model then starts from
visual tokens that tell good photographs from bad ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from calm.io import sha256_file
from calm.layout import Layout
from calm.model.build import ADAPTER, TRAINED, Assembly, read_trained, save_trained
from calm.model.modeling import CalmForConditionalGeneration
from calm.params import Params
from calm.training.features import Features, Key
from calm.training.loop.engine import Run, finish, train
from calm.training.loop.order import WHOLE, Order, Part
from calm.training.settings import Strategy, VisualScores
from calm.training.tuning import balanced, keys_of


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
        error = (seen - self.targets[picked]).square().mean()
        return {"loss": error, "regression": error}


def visual_parameters(model: CalmForConditionalGeneration) -> dict[str, torch.nn.Parameter]:
    """Those that decide the visual part's score and are open for training."""
    names = ("mfam.", "score_head.visual.")
    return {n: p for n, p in model.named_parameters() if n.startswith(names) and p.requires_grad}


def begin(
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
