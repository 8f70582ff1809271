"""Learning scores again and again, each time from another part of the photographs: for cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from calm.assistant import Calm
from calm.data.store import tables
from calm.io import sha256_file, sha256_text
from calm.layout import Layout
from calm.model.build import TRAINED
from calm.model.heads import ScoreHead
from calm.model.mfam import MFAM
from calm.params import Params
from calm.training.features import Features, Key
from calm.training.finetune import assemble_from, head_beside_language, open_for_training, open_language_model
from calm.training.loop.engine import Objective, Run, finish, train
from calm.training.settings import Optimisation, Recipe, Strategy
from calm.training.tuning import InstructionObjective, VisualScoreObjective, learnt_publics, visual_parameters

ALONE = Strategy(kind="single")


class Learner:
    """A model that is set back before each recipe; encoder, language model and features are loaded once.

    Args:
        rows: every photograph that will be learnt from or scored: columns dataset, item_id, score (1..10).
    """

    def __init__(self, params: Params, layout: Layout, rows: pd.DataFrame) -> None:
        self.params, self.layout = params, layout
        start = [layout.pretrained("attributes"), layout.pretrained("alignment")]
        self.assembly = assemble_from(start, params, learnt_publics(rows, params.data.roles.scores))
        open_language_model(self.assembly, start[-1], params)
        self.parameters = self._open("language", "visual")
        state = self.assembly.model.state_dict()
        self._begun: dict[str, torch.Tensor] = {
            name: tensor.clone() for name, tensor in state.items() if self._set_back(name)
        }
        self.features = Features.of(self.assembly, rows["dataset"], params.runtime, layout)
        self.features.prepare(_keys(rows))
        instructions = tables.instructions(layout, "scores")
        self._inputs = [sha256_file(folder / TRAINED) for folder in start]
        self._inputs.append(sha256_file(layout.instructions / "scores.parquet"))
        self._said = [(d, ids[0]) for d, ids in zip(instructions["dataset"], instructions["item_ids"], strict=True)]
        self._instructions = instructions

    def _open(self, *head: str) -> dict[str, torch.nn.Parameter]:
        return open_for_training(self.assembly, head=head, q_formers=self.params.finetune.q_formers)

    def _set_back(self, name: str) -> bool:
        return name in self.parameters or name.startswith(("mfam.", "score_head."))

    def pooled_features(self, rows: pd.DataFrame) -> np.ndarray:
        """All that content reads of photographs (B, F), for a ridge regression."""
        return self.assembly.model.mfam.pooled_features(self.features(_keys(rows))).cpu().numpy()

    def learn(self, recipe: Recipe, rows: pd.DataFrame, seed: int, label: str) -> None:
        """Train on `rows` (columns as above) from the recipe's start: the visual phase, then the language model's."""
        model, options = self.assembly.model, self.params.finetune.scores
        keys = _keys(rows)
        model.load_state_dict(self._begun, strict=False)
        if recipe.self_supervision == "none":
            self._renew(keys, seed)
        model.config.reads = list(recipe.reads)
        visual = options.visual
        scores = rows["score"].tolist()
        self._open("visual")
        trained = visual_parameters(model)
        objective = VisualScoreObjective(
            self.assembly, self.features, trained, keys, scores, visual, seed, f"{label}-visual"
        )
        self._train(objective, visual, seed, f"{label}-visual", rows)
        if recipe.steps:
            known = set(keys)
            said = self._instructions[[key in known for key in self._said]]
            language = options.model_copy(update={"steps": recipe.steps})
            trained = self._open(*head_beside_language(language))
            answers = InstructionObjective(self.assembly, self.features, said, trained, language, seed, label)
            self._train(answers, language, seed, label, rows)

    def fingerprint(self, recipe: Recipe, rows: pd.DataFrame, seed: int, label: str) -> str:
        """Hash of everything that decides what `learn` learns."""
        return self._run(self.params.finetune.scores, seed, f"{label} {recipe.model_dump()}", rows).fingerprint

    def _renew(self, keys: Sequence[Key], seed: int) -> None:
        """Fresh weights of that seed in MFAM and score head; what is usual of content, from these photographs."""
        model = self.assembly.model
        torch.manual_seed(seed)
        for own, fresh in ((model.mfam, MFAM(model.config)), (model.score_head, ScoreHead(model.config))):
            fresh.apply(model._init_weights)
            own.load_state_dict(dict(fresh.named_parameters()), strict=False)
        model.mfam.fit_content(self.features(keys))

    def scores(self, rows: pd.DataFrame, *, language: bool) -> pd.DataFrame:
        """Columns text, expectation, regression of photographs; the visual part's score alone unless `language`."""
        model = self.assembly.model
        if not language:
            half = (model.config.score_max - model.config.score_min) / 2
            with torch.inference_mode():
                raw = model.score_head.look(model.mfam(self.features(_keys(rows)))).double()
            raw = raw[range(len(rows)), [model.config.public(dataset) for dataset in rows["dataset"]]]
            regressed = (model.config.score_min + half * (raw + 1)).tolist()
            return pd.DataFrame({"text": float("nan"), "expectation": float("nan"), "regression": regressed})
        calm = Calm(model, self.assembly.processor, self.assembly.processor.image_processor, Path("cross-validation"))
        found = []
        for dataset, part in rows.groupby("dataset", sort=False):  # rows are sorted by it
            photographs = [self.features.photographs[key] for key in _keys(part)]
            found += calm.score(photographs, public=str(dataset) if dataset in calm.publics else None)
        return pd.DataFrame(
            {name: [getattr(score, name) for score in found] for name in ("text", "expectation", "regression")}
        ).astype("float64")

    def _train(self, objective: Objective, options: Optimisation, seed: int, label: str, rows: pd.DataFrame) -> None:
        run = self._run(options, seed, label, rows)
        train(objective, run)
        finish(run)

    def _run(self, options: Optimisation, seed: int, label: str, rows: pd.DataFrame) -> Run:
        """A training run on these rows."""
        learnt = [_keys(rows), rows["score"].tolist()]
        read = self.params.model_dump(mode="json", exclude={"cross_validations", "report", "evaluation"})
        return Run(
            label, options, ALONE, seed, self.layout.state(label), [read, *self._inputs, sha256_text(repr(learnt))]
        )


def _keys(rows: pd.DataFrame) -> list[Key]:
    return list(zip(rows["dataset"], rows["item_id"], strict=True))
