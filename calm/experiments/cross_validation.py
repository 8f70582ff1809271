"""Cross-validation of scores: each photograph scored by models that never saw its score, beside ridge regressions.

Folds never share a photograph, or never a group of near-duplicates or of one theme, as params say. All recipes and each
public's ridge regression are fitted on the same folds; figures are means over seeds, each with folds of its own,
intervals are over groups of photographs. One model learns again and again, each time from another part of the scores.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from sklearn.model_selection import GroupKFold

from calm.assistant import Calm
from calm.data.store import tables
from calm.evaluation.base import ROW, Bench, Outcome, group_keys, item_keys, origin_of_labels, rated
from calm.evaluation.stage import write_outcome
from calm.evaluation.statistics.metrics import PLCC, SRCC, Bootstrap, mean_over_seeds
from calm.evaluation.statistics.ridge import RIDGE, ridge_scores
from calm.evaluation.tasks.scoring import READOUTS
from calm.io import atomic_file, sha256_file, sha256_text
from calm.layout import Layout
from calm.model.build import TRAINED
from calm.model.heads import ScoreHead
from calm.model.mfam import MFAM
from calm.params import Params
from calm.seeds import derive
from calm.training.features import Features, Key
from calm.training.finetune import RUNS, assemble_from, head_beside_language, open_for_training, open_language_model
from calm.training.loop.engine import Objective, Run, finish, train
from calm.training.scores import VisualScoreObjective, balanced, learnt_publics, visual_parameters
from calm.training.settings import CrossValidation, Optimisation, Recipe, Strategy
from calm.training.tuning import InstructionObjective

SCORED = pa.schema(
    [
        *ROW,
        pa.field("origin", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # on 1..10
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),
        pa.field("text", pa.float64()),  # null without the language model, or where the text names no score
        pa.field("expectation", pa.float64()),
        pa.field("regression", pa.float64(), nullable=False),
        pa.field(RIDGE, pa.float64(), nullable=False),
    ]
)
ALONE = Strategy(kind="single")


class CrossValidationError(ValueError):
    """A cross-validation that cannot be run; the message says why."""


def cross_validate(name: str, params: Params, layout: Layout) -> None:
    """Run params.cross_validations[name] and write results/cross_validation/NAME/.

    Raises:
        CrossValidationError: there are fewer photographs or groups than folds.
    """
    settings = params.cross_validations[name]
    bench: Bench[CrossValidation] = Bench("scoring", params, layout, None, settings)  # type: ignore[arg-type]
    lists = ("train", "test") if settings.photographs == "all" else ("train",)
    rows = pd.concat([rated(bench, part) for part in lists], ignore_index=True)
    rows = rows[rows["synthetic_edits"].isna()].sort_values(["dataset", "item_id"], ignore_index=True)
    learner = Learner(params, layout, rows)
    state = layout.state(f"cross-validation-{name}")
    features = learner.pooled_features(rows)
    parts = []
    for seed in settings.seeds:
        for fold, (known, held_out) in enumerate(folds(rows, settings, seed)):
            train, test = rows.iloc[known], rows.iloc[held_out]
            ridge = _ridge(features, rows, known, held_out)
            for recipe, how in settings.recipes.items():
                found = _found(learner, how, train, test, seed, f"{name} {recipe} {seed} {fold}", state)
                kept = test[["dataset", "item_id", "group", "origin", "score"]]
                told = kept.assign(seed=seed, fold=fold, recipe=recipe, **{RIDGE: ridge})
                parts.append(pd.concat([told, found], axis=1))
    scored = pd.concat(parts, ignore_index=True)[SCORED.names].astype({"fold": "int32"})
    outcome = Outcome(measure(scored, settings, bench.bootstrap), scored, SCORED)
    write_outcome(layout.cross_validation(name), outcome)
    shutil.rmtree(state, ignore_errors=True)


def _ridge(features: np.ndarray, rows: pd.DataFrame, known: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Scores of the rows `held_out`, of each public by a regression on the rows `known` of that public."""
    found = np.full(len(held_out), np.nan)
    for dataset in rows["dataset"].unique():
        train, asked = (part[(rows["dataset"].iloc[part] == dataset).to_numpy()] for part in (known, held_out))
        seen = rows.iloc[train]
        found[np.isin(held_out, asked)] = ridge_scores(
            features[train], seen["score"], group_keys(seen), features[asked]
        )
    return found


def _found(
    learner: Learner, recipe: Recipe, train: pd.DataFrame, test: pd.DataFrame, seed: int, label: str, state: Path
) -> pd.DataFrame:
    """Scores of `test`, learnt from `train`; what a run that was stopped has found is not computed again."""
    kept = state / f"{learner.fingerprint(recipe, train, seed, label)}.parquet"
    if not kept.is_file():
        learner.learn(recipe, train, seed, label)
        found = learner.scores(test, language=recipe.steps > 0)
        with atomic_file(kept) as part:
            found.to_parquet(part)
    return pd.read_parquet(kept).set_axis(test.index)


def folds(rows: pd.DataFrame, settings: CrossValidation, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of the training and the held-out rows of every fold, drawn by seed.

    Raises:
        CrossValidationError: there are fewer photographs or groups than folds.
    """
    together = item_keys(rows) if settings.by == "photograph" else group_keys(rows)
    numbers = {key: number for number, key in enumerate(dict.fromkeys(together))}
    if len(numbers) < settings.folds:
        raise CrossValidationError(f"{settings.folds} folds of {len(numbers)} rated {settings.by}s: ask for fewer")
    drawn = GroupKFold(settings.folds, shuffle=True, random_state=derive(seed, "folds") % 2**32)
    yield from drawn.split(rows, groups=[numbers[key] for key in together])


def measure(scored: pd.DataFrame, settings: CrossValidation, bootstrap: Bootstrap) -> dict[str, Any]:
    """Of each public: a recipe's readouts beside ridge regression on the same folds, and beside the first recipe."""
    return {
        "folds": settings.folds,
        "by": settings.by,
        "seeds": list(settings.seeds),
        "order": list(settings.recipes),  # a file of metrics sorts its keys; what is compared is held against the first
        "publics": {str(name): _of_public(part, settings, bootstrap) for name, part in scored.groupby("dataset")},
    }


def _of_public(scored: pd.DataFrame, settings: CrossValidation, bootstrap: Bootstrap) -> dict[str, Any]:
    runs = _Runs(scored, settings.seeds, bootstrap)
    first, *others = settings.recipes
    ridge = runs.of(first, RIDGE)
    return {
        "labels": origin_of_labels(scored["origin"]),
        "items": len(runs.target),
        "groups": len(set(runs.groups)),
        RIDGE: {metric.name: runs.figure(metric, ridge) for metric in (SRCC, PLCC)},
        "recipes": {
            recipe: {
                readout: _readout(runs, runs.of(recipe, readout), ridge)
                for readout in READOUTS
                if scored.loc[scored["recipe"] == recipe, readout].notna().all()
            }
            for recipe in settings.recipes
        },
        "compared": {
            f"{first}_minus_{other}": runs.figure(SRCC, runs.of(first, "regression"), runs.of(other, "regression"))
            for other in others
        },
    }


def _readout(runs: _Runs, scores: Sequence[np.ndarray], ridge: Sequence[np.ndarray]) -> dict[str, Any]:
    both = [_standard(one) + _standard(other) for one, other in zip(scores, ridge, strict=True)]
    return {
        "srcc": runs.figure(SRCC, scores),
        "plcc": runs.figure(PLCC, scores),
        f"over_{RIDGE}": runs.figure(SRCC, scores, ridge),
        f"with_{RIDGE}": runs.figure(SRCC, both),
        f"gain_with_{RIDGE}": runs.figure(SRCC, both, scores),
        f"with_{RIDGE}_over_{RIDGE}": runs.figure(SRCC, both, ridge),
    }


def _standard(scores: np.ndarray) -> np.ndarray:
    spread = scores.std()
    return (scores - scores.mean()) / (spread or 1.0)


class _Runs:
    """Scores of all photographs, one vector for each seed, in one order."""

    def __init__(self, scored: pd.DataFrame, seeds: Sequence[int], bootstrap: Bootstrap) -> None:
        self.seeds, self.bootstrap = seeds, bootstrap
        self.scored = scored.sort_values(["seed", "dataset", "item_id"])
        one = self.scored[(self.scored["seed"] == seeds[0]) & (self.scored["recipe"] == scored["recipe"].iloc[0])]
        self.target, self.groups = one["score"].to_numpy(), group_keys(one)

    def of(self, recipe: str, column: str) -> list[np.ndarray]:
        """(N,) of each seed."""
        rows = self.scored[self.scored["recipe"] == recipe]
        return [rows.loc[rows["seed"] == seed, column].to_numpy() for seed in self.seeds]

    def figure(self, metric: Any, scores: Sequence[np.ndarray], minus: Sequence[np.ndarray] = ()) -> Any:
        return mean_over_seeds(metric, scores, self.target, self.groups, self.bootstrap, minus).to_json()


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
        self._said, self._rated = {run: tables.instructions(layout, run) for run in RUNS}, set(rows["dataset"])
        read = [*(folder / TRAINED for folder in start), *(layout.instructions / f"{run}.parquet" for run in RUNS)]
        self._inputs = [sha256_file(path) for path in read]
        datasets = self._rated.union(*(said["dataset"] for said in self._said.values()))
        self.features = Features.of(self.assembly, datasets, params.runtime, layout)
        self.features.prepare(_keys(rows))

    def _open(self, *head: str) -> dict[str, torch.nn.Parameter]:
        return open_for_training(self.assembly, head=head, q_formers=self.params.finetune.q_formers)

    def _set_back(self, name: str) -> bool:
        return name in self.parameters or name.startswith(("mfam.", "score_head."))

    def pooled_features(self, rows: pd.DataFrame) -> np.ndarray:
        """All that content reads of photographs (B, F), for a ridge regression."""
        return self.assembly.model.mfam.pooled_features(self.features(_keys(rows))).cpu().numpy()

    def learn(self, recipe: Recipe, rows: pd.DataFrame, seed: int, label: str) -> None:
        """Train on `rows` (columns as above) from the recipe's start: the visual phase, then the language model's.

        Comments may tell scores, so before a language model learns scores it learns comments anew in each fold.
        """
        model, options = self.assembly.model, self.params.finetune.scores
        model.load_state_dict(self._begun, strict=False)
        if recipe.self_supervision == "none":
            self._renew(_keys(rows), seed)
        model.config.reads = list(recipe.reads)
        if recipe.steps:
            self._tune(self._learnt("comments", rows), (), self.params.finetune.comments, seed, f"{label}-words", rows)
        said = balanced(self._learnt("scores", rows), options.balance)
        scored, visual = said[said["score"].notna()], options.visual
        self._open("visual")
        trained = visual_parameters(model)
        objective = VisualScoreObjective(self.assembly, self.features, trained, scored, visual, seed, f"{label}-visual")
        self._train(objective, visual, seed, f"{label}-visual", rows)
        if recipe.steps:
            language = options.model_copy(update={"steps": recipe.steps})
            self._tune(said, head_beside_language(language), language, seed, label, rows)

    def _learnt(self, run: str, rows: pd.DataFrame) -> pd.DataFrame:
        """Instructions about these photographs, and about training ones of datasets without scores to find."""
        known, said = set(_keys(rows)), self._said[run]
        about = zip(said["dataset"], said["item_ids"], said["split"], strict=True)
        return said[
            [(name, ids[0]) in known or (name not in self._rated and split == "train") for name, ids, split in about]
        ]

    def _tune(
        self, said: pd.DataFrame, head: Sequence[str], options: Optimisation, seed: int, label: str, rows: pd.DataFrame
    ) -> None:
        """The language model, and these parts of the score head, on these instructions."""
        trained = self._open(*head)
        answers = InstructionObjective(self.assembly, self.features, said, trained, options, seed, label)
        self._train(answers, options, seed, label, rows)

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
