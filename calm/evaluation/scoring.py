"""Scores of held-out photographs against the crowd's, by the three readouts (paper: SRCC, PLCC on AVA)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from calm.evaluation import plots
from calm.evaluation.base import (
    Bench,
    EvaluationError,
    Headline,
    Outcome,
    Task,
    csv_bytes,
    group_keys,
    origin_of_labels,
)
from calm.evaluation.metrics import MAE, PLCC, SRCC, Bootstrap, estimate

READOUTS = ("text", "expectation", "regression")
PREDICTIONS = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("edited", pa.bool_(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("text", pa.float64()),  # null where the text names no score
        pa.field("expectation", pa.float64(), nullable=False),
        pa.field("regression", pa.float64(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
    ]
)


def run(bench: Bench) -> Outcome:
    """Score every test row of role `scores`."""
    rows = rated(bench, "test")
    predictions = predict(bench, rows)
    metrics = measure(predictions, bench.bootstrap)
    metrics["baseline"] = {"mae": _constant_answer(bench, rows)}
    return Outcome(metrics, predictions, PREDICTIONS, _plots(predictions))


def rated(bench: Bench, split: str) -> pd.DataFrame:
    """Items of a split with the crowd's score: columns of ITEM, and score, origin.

    Raises:
        EvaluationError: an item has no crowd score, or several.
    """
    from calm.data.tables import ratings

    rows = bench.items("scores", split)
    tables = [ratings(bench.layout, dataset) for dataset in sorted(rows["dataset"].unique())]
    crowd = pd.concat(tables).loc[lambda t: t["rater_id"].isna(), ["dataset", "item_id", "score", "origin"]]
    merged = rows.merge(crowd, on=["dataset", "item_id"], how="left")
    if merged["score"].isna().any():
        row = merged[merged["score"].isna()].iloc[0]
        raise EvaluationError(f"{row['dataset']}: item '{row['item_id']}' is in the list of role 'scores' but unrated")
    if len(merged) > len(rows):
        row = merged[merged.duplicated(["dataset", "item_id"])].iloc[0]
        raise EvaluationError(f"{row['dataset']}: item '{row['item_id']}' has more than one crowd score")
    return merged


def predict(bench: Bench, rows: pd.DataFrame) -> pd.DataFrame:
    """The model's three readouts beside the crowd's score (schema PREDICTIONS)."""
    size = bench.params.evaluation.batch_size
    scores = [score for images in bench.batches(rows) for score in bench.model.score(images, batch_size=size)]
    frame = rows[["dataset", "item_id", "group", "score", "origin"]].assign(edited=rows["synthetic_edits"].notna())
    for name in (*READOUTS, "raw"):
        frame[name] = [getattr(score, name) for score in scores]
    frame["text"] = frame["text"].astype("float64")
    predictions: pd.DataFrame = frame[PREDICTIONS.names]
    return predictions


def measure(predictions: pd.DataFrame, bootstrap: Bootstrap) -> dict[str, Any]:
    """SRCC, PLCC and MAE of each readout, intervals over groups of photographs."""
    metrics: dict[str, Any] = {
        "labels": origin_of_labels(predictions["origin"]),
        "items": len(predictions),
        "groups": len(set(group_keys(predictions))),
    }
    for readout in READOUTS:
        known = predictions[predictions[readout].notna()]
        groups = group_keys(known)
        metrics[readout] = {
            metric.name: estimate(metric, known[readout], known["score"], groups, bootstrap).to_json()
            for metric in (SRCC, PLCC, MAE)
        }
    metrics["text"]["unparseable"] = float(predictions["text"].isna().mean())
    return metrics


def _constant_answer(bench: Bench, rows: pd.DataFrame) -> float:
    """MAE of always answering the mean of the training scores: what a readout has to beat."""
    train = rated(bench, "train")
    return round(float(np.abs(rows["score"] - train["score"].mean()).mean()), 6)


def _plots(predictions: pd.DataFrame) -> dict[str, bytes]:
    series = {readout: predictions[readout].to_numpy(dtype=float) for readout in READOUTS}
    target = f"score given ({origin_of_labels(predictions['origin'])})"
    long = predictions.melt(["item_id", "score"], list(READOUTS), "readout", "predicted")
    return {
        "scatter.svg": plots.scatter(predictions["score"], series, xlabel=target, ylabel="score read from the model"),
        "scatter.csv": csv_bytes(long),
    }


TASK = Task(
    title="Aesthetic scoring",
    about="Does the score rank held-out photographs as the given scores do? Three ways of reading it.",
    headlines=(
        Headline("SRCC, expectation", "expectation.srcc"),
        Headline("SRCC, regression", "regression.srcc"),
        Headline("SRCC, text", "text.srcc"),
        Headline("PLCC, expectation", "expectation.plcc"),
        Headline("PLCC, regression", "regression.plcc"),
        Headline("PLCC, text", "text.plcc"),
        Headline("MAE, expectation", "expectation.mae", (("constant answer", "baseline.mae"),)),
        Headline("MAE, regression", "regression.mae", (("constant answer", "baseline.mae"),)),
        Headline("MAE, text", "text.mae", (("constant answer", "baseline.mae"),)),
    ),
    run=run,
)
