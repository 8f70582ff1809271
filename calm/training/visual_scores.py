"""How S begins: without the language model, the MFAM and the score head's visual part learn to score.

Chosen here (docs/paper.md): a step takes milliseconds instead of seconds, and the language model then starts from
visual tokens that tell good photographs from bad ones. Two losses:

- the squared error of the visual part;
- the edit gap, with a weight of its own: a photograph edited harmfully should score a stated gap less than itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch

from calm.attributes.edits import Edit
from calm.attributes.taxonomy import taxonomy
from calm.data.store import tables
from calm.io import sha256_file
from calm.layout import Layout
from calm.model.build import ADAPTER, TRAINED, Assembly, read_trained, save_trained
from calm.model.mfam import LevelTokens
from calm.model.modeling import CalmForConditionalGeneration
from calm.params import Params
from calm.seeds import stream
from calm.training.features import ENCODED_AT_ONCE, Features, Key, Photographs, render
from calm.training.loop.engine import Run, finish, train
from calm.training.loop.order import WHOLE, Order, Part
from calm.training.settings import EditGap, Strategy, VisualScores

MILDEST = 0.5  # severity of a harmful edit, at least


class VisualScoreObjective:
    """Squared error of the visual part in half-scales, and the edit gap.

    Args:
        parameters: what is trained.
        keys, scores: of every training photograph, the scores on the score scale.
        spoilt: where it is at hand, what the edit gap compares photographs with.
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
        spoilt: SpoiltViews | None = None,
    ) -> None:
        self.assembly, self.features, self.parameters, self.keys = assembly, features, parameters, list(keys)
        config = assembly.model.config
        half = (config.score_max - config.score_min) / 2
        self.targets = (torch.tensor(scores, dtype=torch.float32) - config.score_min) / half - 1
        self.order = Order(len(self.keys), options.batch_size, seed, name)
        self.gap = options.edit_gap
        features.prepare(self.keys)
        if self.gap.weight:
            self.spoilt = spoilt or SpoiltViews(assembly, features.photographs, self.keys, self.gap, seed)
            self.pairs = Order(len(self.keys), self.gap.pairs, seed, f"{name}-gap")

    @property
    def model(self) -> torch.nn.Module:
        """What strategies share out."""
        return self.assembly.model

    def read(self, step: int, part: Part) -> None:
        """Nothing: features are kept."""

    def losses(self, step: int, part: Part = WHOLE, read: None = None) -> dict[str, torch.Tensor]:
        """Losses of one step; this phase is run by one process alone."""
        assert part == WHOLE, "the visual phase is not shared out"
        with forgetting(self.assembly.model.score_head):
            return self._losses(step)

    def _losses(self, step: int) -> dict[str, torch.Tensor]:
        picked = self.order(step)
        error = (self._look(self.features([self.keys[i] for i in picked])) - self.targets[picked]).square().mean()
        losses = {"regression": error}
        total = error
        if self.gap.weight:
            visits = self.pairs.visits(step)
            itself = self._look(self.features([self.keys[visit.sample] for visit in visits]))
            spoilt = self._look(self.spoilt([(self.keys[visit.sample], visit.epoch) for visit in visits]))
            wanted = self.gap.gap * self.targets.std()
            losses["edit_gap"] = (itself - spoilt - wanted).square().mean()
            total = total + self.gap.weight * losses["edit_gap"]
        return {"loss": total, **losses}

    def _look(self, tokens: LevelTokens) -> torch.Tensor:
        model = self.assembly.model
        return model.score_head.look(model.mfam(tokens))


@contextmanager
def forgetting(module: torch.nn.Module) -> Iterator[None]:
    """Dropout is on in the module, in a model that is otherwise as it answers."""
    module.train()
    try:
        yield
    finally:
        module.eval()


class SpoiltViews:
    """Photographs with one harmful edit each, encoded once: the n-th is a function of (seed, photograph, n)."""

    def __init__(
        self, assembly: Assembly, photographs: Photographs, keys: Sequence[Key], options: EditGap, seed: int
    ) -> None:
        self.assembly, self.photographs, self.keys, self.seed = assembly, photographs, list(keys), seed
        self._rows = {key: row for row, key in enumerate(self.keys)}
        self.harmful = [
            (attribute.name, state.name)
            for attribute in taxonomy().attributes
            for state in attribute.states
            if state.harm >= options.harm
        ]
        self._views = [self._encode_all(number) for number in range(options.views)]

    def __call__(self, views: Sequence[tuple[Key, int]]) -> LevelTokens:
        """Features of (photograph, number of its view); numbers beyond the last view begin anew."""
        return LevelTokens.concatenate([self._view(self._rows[key], number) for key, number in views])

    def _view(self, row: int, number: int) -> LevelTokens:
        return self._views[number % len(self._views)].rows(slice(row, row + 1))

    def _encode_all(self, number: int) -> LevelTokens:
        chunks = range(0, len(self.keys), ENCODED_AT_ONCE)
        return LevelTokens.concatenate([self._encode(self.keys[i : i + ENCODED_AT_ONCE], number) for i in chunks])

    def _encode(self, keys: Sequence[Key], number: int) -> LevelTokens:
        pixels = [self.photographs.unit_pixels(key) for key in keys]
        rendered = render(pixels, [[self._edit(key, number)] for key in keys], self.assembly.preprocessing)
        return self.assembly.model.encode_images(rendered.to(self.assembly.model.device))

    def _edit(self, key: Key, number: int) -> Edit:
        rng = stream(self.seed, "spoilt", *key, number)
        attribute, state = self.harmful[int(rng.integers(len(self.harmful)))]
        return Edit(attribute, state, float(rng.uniform(MILDEST, 1)), int(rng.integers(2**62)))


def visual_parameters(model: CalmForConditionalGeneration) -> dict[str, torch.nn.Parameter]:
    """Those that decide the visual part's score and are open for training."""
    names = ("mfam.", "score_head.visual.")
    return {n: p for n, p in model.named_parameters() if n.startswith(names) and p.requires_grad}


def begin(assembly: Assembly, start: Path, out: Path, params: Params, layout: Layout, label: str) -> pd.DataFrame:
    """Train from the checkpoint `start` of C, loaded and opened in `assembly`, and write one like it to `out`.

    Returns:
        The learning curve.
    """
    options = params.finetune.scores.visual
    model = assembly.model
    trained = visual_parameters(model)
    rows = tables.instructions(layout, "scores")
    rows = rows[(rows["split"] == "train") & rows["score"].notna()]
    keys = [(dataset, item_ids[0]) for dataset, item_ids in zip(rows["dataset"], rows["item_ids"], strict=True)]
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
