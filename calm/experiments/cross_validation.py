"""Cross-validation of scores: every rated photograph scored by models that never saw it, beside ridge regressions.

Folds never share a photograph, or never a group of near-duplicates or of one theme, as params say. All recipes and both
ridge regressions are fitted on the same folds; figures are means over seeds, each with folds of its own, intervals are
over groups of photographs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.model_selection import GroupKFold

from calm.evaluation.base import ROW, Bench, Outcome, group_keys, item_keys, origin_of_labels
from calm.evaluation.stage import write_outcome
from calm.evaluation.statistics.metrics import PLCC, SRCC, Bootstrap, mean_over_seeds
from calm.evaluation.statistics.ridge import RIDGE, ridge_scores
from calm.evaluation.tasks.scoring import READOUTS, rated
from calm.io import atomic_file
from calm.layout import Layout
from calm.params import Params
from calm.seeds import derive
from calm.training.settings import CrossValidation, Recipe

if TYPE_CHECKING:
    from calm.experiments.folds import Learner

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


class CrossValidationError(ValueError):
    """A cross-validation that cannot be run; the message says why."""


def cross_validate(name: str, params: Params, layout: Layout) -> None:
    """Run params.cross_validations[name] and write results/cross_validation/NAME/.

    Raises:
        CrossValidationError: there are fewer photographs or groups than folds.
    """
    settings = params.cross_validations[name]
    from calm.experiments.folds import Learner

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
            ridge = ridge_scores(features[known], train["score"], group_keys(train), features[held_out])
            for recipe, how in settings.recipes.items():
                found = _found(learner, how, train, test, seed, f"{name} {recipe} {seed} {fold}", state)
                kept = test[["dataset", "item_id", "group", "origin", "score"]]
                told = kept.assign(seed=seed, fold=fold, recipe=recipe, **{RIDGE: ridge})
                parts.append(pd.concat([told, found], axis=1))
    scored = pd.concat(parts, ignore_index=True)[SCORED.names].astype({"fold": "int32"})
    outcome = Outcome(measure(scored, settings, bench.bootstrap), scored, SCORED)
    write_outcome(layout.cross_validation(name), outcome)
    shutil.rmtree(state, ignore_errors=True)


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
    """Every recipe's readouts beside the ridge regression on the same folds, and beside the first recipe."""
    runs = _Runs(scored, settings.seeds, bootstrap)
    first, *others = settings.recipes
    ridge = runs.of(first, RIDGE)
    metrics: dict[str, Any] = {
        "labels": origin_of_labels(scored["origin"]),
        "items": len(runs.target),
        "groups": len(set(runs.groups)),
        "folds": settings.folds,
        "by": settings.by,
        "seeds": list(settings.seeds),
        "order": list(settings.recipes),  # a file of metrics sorts its keys; what is compared is held against the first
        RIDGE: {metric.name: runs.figure(metric, ridge) for metric in (SRCC, PLCC)},
        "recipes": {},
    }
    for recipe in settings.recipes:
        metrics["recipes"][recipe] = {
            readout: _readout(runs, runs.of(recipe, readout), ridge)
            for readout in READOUTS
            if scored.loc[scored["recipe"] == recipe, readout].notna().all()
        }
    metrics["compared"] = {
        f"{first}_minus_{other}": runs.figure(SRCC, runs.of(first, "regression"), runs.of(other, "regression"))
        for other in others
    }
    return metrics


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
