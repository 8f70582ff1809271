"""Scores of held-out photographs against the crowd's, by the three readouts (paper: SRCC, PLCC on AVA).

Scores of every dataset are mapped onto calm's scale of 1 to 10 first, so an error of one point is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from calm.evaluation.base import (
    ROW,
    Bench,
    Headline,
    Outcome,
    Pair,
    Task,
    group_keys,
    origin_of_labels,
    rated,
)
from calm.evaluation.settings import TaskSettings
from calm.evaluation.statistics import plots
from calm.evaluation.statistics.calibration import ACCURACY, CALIBRATION, PLCC_LOGISTIC, emd, reliability
from calm.evaluation.statistics.metrics import (
    KRCC,
    MAE,
    PLCC,
    SRCC,
    Bootstrap,
    Metric,
    estimate,
    mean,
    paired_difference,
)
from calm.evaluation.statistics.ridge import RIDGE, RIDGE_LABEL, ridge_scores
from calm.instructions import SCORE_RANGE
from calm.settings import PositiveInt

if TYPE_CHECKING:
    from calm.assistant import Score

READOUTS = ("text", "expectation", "regression")
METRICS = (SRCC, PLCC, PLCC_LOGISTIC, KRCC, MAE, ACCURACY, CALIBRATION)
COMPARED = (
    ("regression", "expectation"),
    ("regression", "text"),
    ("expectation", "text"),
    *((readout, RIDGE) for readout in ("regression", "expectation", "text")),
)
NO_VOTES = "no photograph of the list has a histogram of votes"
PREDICTIONS = pa.schema(
    [
        *ROW,
        pa.field("edited", pa.bool_(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # on 1..10
        pa.field("cut", pa.float64(), nullable=False),  # above it a photograph counts as good
        pa.field("origin", pa.string(), nullable=False),
        pa.field("text", pa.float64()),  # null where the text names no score
        pa.field("expectation", pa.float64(), nullable=False),
        pa.field("regression", pa.float64(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
        pa.field(RIDGE, pa.float64()),  # null where it was not fitted
        pa.field("emd", pa.float64()),  # of the score's distribution from the votes; null without votes
    ]
)


class ScoringSettings(TaskSettings):
    """params.evaluation.tasks.scoring."""

    ridge_photographs: PositiveInt | None  # training photographs that the ridge regression sees; None leaves it out


def run(bench: Bench[ScoringSettings]) -> Outcome:
    """Score every test row of role `scores`; each dataset's raters are a public with figures of its own.

    Those of the public that the model answers for by default stand first, the others' under `publics`.
    """
    rows, train = rated(bench, "test"), rated(bench, "train")
    predictions = predict(bench, rows)
    if bench.settings.ridge_photographs is not None:
        seen = bench.at_most(train, bench.settings.ridge_photographs)
        for dataset in rows["dataset"].unique():
            own = (rows["dataset"] == dataset).to_numpy()
            predictions.loc[own, RIDGE] = _ridge(bench, rows[own], seen[seen["dataset"] == dataset])
    figures = {
        str(name): measure(part, bench.bootstrap)
        | {"baseline": _constant_answers(rows[rows["dataset"] == name], train[train["dataset"] == name])}
        for name, part in predictions.groupby("dataset")
    }
    first = next((name for name in bench.model.publics if name in figures), min(figures))
    metrics = figures.pop(first)
    if figures:
        metrics |= {"public": first, "publics": figures}
    return Outcome(metrics, predictions, PREDICTIONS, _plots(predictions[predictions["dataset"] == first]))


def predict(bench: Bench, rows: pd.DataFrame) -> pd.DataFrame:
    """The model's three readouts beside the crowd's score (schema PREDICTIONS)."""
    size = bench.params.evaluation.batch_size
    scores: list[Score] = []
    publics = set(bench.model.publics)
    # Sorted by dataset, as lists are: of each, its own public is asked where the model knows it.
    for dataset, part in rows.groupby("dataset", sort=False):
        public = str(dataset) if dataset in publics else None
        for images in bench.batches(part):
            scores += bench.model.score(images, batch_size=size, public=public)
    frame = rows[["dataset", "item_id", "group", "score", "cut", "origin"]].assign(
        edited=rows["synthetic_edits"].notna(),
        emd=np.array(
            [_emd(score.distribution, votes) for score, votes in zip(scores, rows["votes"], strict=True)], float
        ),
        **{RIDGE: np.nan},
    )
    for name in (*READOUTS, "raw"):
        frame[name] = [getattr(score, name) for score in scores]
    frame["text"] = frame["text"].astype("float64")
    predictions: pd.DataFrame = frame[PREDICTIONS.names]
    return predictions


def _ridge(bench: Bench[ScoringSettings], rows: pd.DataFrame, train: pd.DataFrame) -> np.ndarray:
    """Scores of `rows` by a ridge regression fitted on `train`."""
    seen, asked = (
        np.concatenate([bench.model.pooled_features(images) for images in bench.batches(part)])
        for part in (train, rows)
    )
    return ridge_scores(seen, train["score"], group_keys(train), asked).clip(*SCORE_RANGE)


def _emd(shares: Sequence[float], votes: Sequence[float] | None) -> float:
    return float("nan") if votes is None else emd(shares, votes, *SCORE_RANGE)


def measure(predictions: pd.DataFrame, bootstrap: Bootstrap) -> dict[str, Any]:
    """Every figure of each readout, intervals over groups of photographs; the readouts against one another, paired."""
    metrics: dict[str, Any] = {
        "labels": origin_of_labels(predictions["origin"]),
        "items": len(predictions),
        "groups": len(set(group_keys(predictions))),
        "cut": dict(sorted(predictions.groupby("dataset")["cut"].first().items())),
    }
    for readout in (*READOUTS, RIDGE):
        known = predictions[predictions[readout].notna()]
        if known.empty and readout == RIDGE:
            continue
        values = {metric.name: _values(metric, known, readout) for metric in METRICS}
        metrics[readout] = {
            metric.name: estimate(metric, *values[metric.name], group_keys(known), bootstrap).to_json()
            for metric in METRICS
        }
    metrics["text"]["unparseable"] = float(predictions["text"].isna().mean())
    metrics["compared"] = {
        f"{a}_minus_{b}": _compared(predictions, a, b, bootstrap) for a, b in COMPARED if {a, b} <= metrics.keys()
    }
    voted = predictions[predictions["emd"].notna()]
    metrics["emd"] = mean(voted["emd"], group_keys(voted), bootstrap).to_json()
    if voted.empty:
        metrics["emd"]["reason"] = NO_VOTES
    return metrics


def _values(metric: Metric, rows: pd.DataFrame, readout: str) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and given scores as the metric wants them: accuracy, around the cut."""
    around = rows["cut"].to_numpy(dtype=float) if metric is ACCURACY else 0.0
    return rows[readout].to_numpy(dtype=float) - around, rows["score"].to_numpy(dtype=float) - around


def _compared(predictions: pd.DataFrame, first: str, second: str, bootstrap: Bootstrap) -> dict[str, Any]:
    """First minus second on the photographs that both score, with a two-sided p of the paired bootstrap."""
    known = predictions[predictions[first].notna() & predictions[second].notna()]
    found = {}
    for metric in METRICS:
        (a, y), (b, _) = (_values(metric, known, readout) for readout in (first, second))
        found[metric.name] = paired_difference(metric, a, b, y, group_keys(known), bootstrap).to_json()
    return found


def compared(first: pd.DataFrame, second: pd.DataFrame, bootstrap: Bootstrap) -> list[Pair]:
    """Each readout of two models, on the photographs that both score."""
    pairs = []
    for readout in READOUTS:
        known = (first[readout].notna() & second[readout].notna()).to_numpy()
        rows, others = first[known], second[known]
        groups = group_keys(rows)
        a, b, target = (part.to_numpy(dtype=float) for part in (rows[readout], others[readout], rows["score"]))
        for metric in (SRCC, PLCC, MAE):
            gap = paired_difference(metric, a, b, target, groups, bootstrap)
            ours, theirs = (None if gap.value is None else metric.point(scores, target) for scores in (a, b))
            pairs.append(Pair(f"{metric.label}, {readout}", ours, theirs, gap, higher_is_better=metric is not MAE))
    return pairs


def _constant_answers(rows: pd.DataFrame, train: pd.DataFrame) -> dict[str, float | None]:
    """What a readout has to beat: always the mean training score, the more frequent side, the mean training votes."""
    good = (rows["score"] > rows["cut"]).to_numpy()
    told = {dataset: _mean_votes(part["votes"]) for dataset, part in train.groupby("dataset")}
    distances = [
        emd(shares, votes, *SCORE_RANGE)
        for dataset, votes in zip(rows["dataset"], rows["votes"], strict=True)
        if votes is not None and (shares := told.get(dataset)) is not None
    ]
    return {
        "mae": round(float(np.abs(rows["score"] - train["score"].mean()).mean()), 6),
        "accuracy": round(float(max(good.mean(), 1 - good.mean())), 6),
        "emd": round(float(np.mean(distances)), 6) if distances else None,
    }


def _mean_votes(votes: pd.Series) -> list[float] | None:
    """Mean of the normalised histograms of one dataset, None where it has none."""
    shares = [np.asarray(one, dtype=float) / sum(one) for one in votes if one is not None]
    return [float(share) for share in np.mean(shares, axis=0)] if shares else None


def _plots(predictions: pd.DataFrame) -> dict[str, bytes]:
    series = {readout: predictions[readout].to_numpy(dtype=float) for readout in READOUTS}
    target = f"score given ({origin_of_labels(predictions['origin'])})"
    bins = {
        name: reliability(known[name], known["score"])
        for name in READOUTS
        if len(known := predictions[predictions[name].notna()])
    }
    long = predictions.melt(["item_id", "score"], list(READOUTS), "readout", "predicted")
    return {
        "scatter.svg": plots.scatter(predictions["score"], series, xlabel=target, ylabel="score read from the model"),
        "scatter.csv": plots.csv(long),
        "reliability.svg": plots.reliability(bins, xlabel="mean score read from the model", ylabel=target),
        "reliability.csv": plots.csv(
            pd.DataFrame([{"readout": name} | asdict(one) for name, rows in bins.items() for one in rows])
        ),
    }


def _beside(metric: Metric) -> tuple[tuple[str, str], ...]:
    """What stands beside a readout's figure: the ridge regression's, and what a constant answer reaches."""
    constant = {"mae": ("constant answer", "baseline.mae"), "accuracy": ("more frequent side", "baseline.accuracy")}
    ridge = (RIDGE_LABEL, f"{RIDGE}.{metric.name}.value")
    return (ridge, constant[metric.name]) if metric.name in constant else (ridge,)


TASK = Task(
    title="Aesthetic scoring",
    about="Does the score rank held-out photographs as the given scores do? Three ways of reading it.",
    headlines=(
        *(
            Headline(f"{metric.label}, {readout}", f"{readout}.{metric.name}", _beside(metric))
            for metric in METRICS
            for readout in ("expectation", "regression", "text")
        ),
        Headline("EMD from the votes", "emd", (("mean training votes", "baseline.emd"),)),
        *(
            Headline(f"SRCC, {first} minus {second}", f"compared.{first}_minus_{second}.srcc")
            for first, second in COMPARED
        ),
    ),
    run=run,
    settings=ScoringSettings,
    compared=compared,
)
