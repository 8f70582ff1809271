"""Scores for one person from a few of their ratings (PIAA), by the protocol of the literature on FLICKR-AES.

Raters and photographs of the test are both new to the model. Stage `split` has drawn, for each test rater and number of
shots, several support sets; the rater's other test photographs are ranked. SRCC per rater, mean over draws, then mean
over raters with an interval over raters. docs/evaluation.md describes protocol and methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from calm.evaluation.base import Bench, EvaluationError, Headline, Outcome, Task, item_keys, origin_of_labels
from calm.evaluation.settings import TaskSettings
from calm.evaluation.statistics import plots
from calm.evaluation.statistics.metrics import MAE, SRCC, Bootstrap, UndefinedMetric, mean
from calm.evaluation.statistics.ridge import Scaling, ridge
from calm.instructions import rescale
from calm.settings import PositiveInt

if TYPE_CHECKING:
    from calm.assistant.personal import Observed

PROTOCOL = (10, 100)  # rated photographs a rater, in the literature on FLICKR-AES
METHODS = {
    "generic": "generic score",
    "rater_mean": "rater's mean",
    "ridge": "ridge on residuals",
    "in_context": "in context",
    "crowd": "the crowd's true score",
}
PERSONAL = ("ridge", "in_context")
OFF = "not asked for: evaluation.tasks.personalised.in_context"
UNKNOWN = "the photographs have no crowd score"
CONSTANT = "one value for all photographs of a rater ranks nothing"
PREDICTIONS = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("rater_id", pa.string(), nullable=False),
        pa.field("shots", pa.int32(), nullable=False),
        pa.field("draw", pa.int32(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("rating", pa.float64(), nullable=False),  # this, and what follows, on 1..10
        pa.field("origin", pa.string(), nullable=False),
        *(pa.field(name, pa.float64()) for name in METHODS),  # null where a method does not apply
    ]
)


class PersonalisedSettings(TaskSettings):
    """params.evaluation.tasks.personalised."""

    readout: Literal["expectation", "regression"]
    support: Annotated[list[PositiveInt], Field(min_length=1)]
    draws: PositiveInt
    in_context: list[PositiveInt]  # of support, those that are also scored in context

    @model_validator(mode="after")
    def _in_context_has_effect(self) -> PersonalisedSettings:
        if not set(self.in_context) <= set(self.support):
            raise ValueError(f"evaluation.tasks.personalised.in_context: choose from support, {self.support}")
        return self


@dataclass(frozen=True)
class Seen:
    """Photographs as the model saw them, found by their key."""

    place: Mapping[tuple[str, str], int]
    observed: Observed
    generic: NDArray[np.float64]

    def rows(self, frame: pd.DataFrame) -> NDArray[np.intp]:
        """Row of each of the frame's items."""
        return np.array([self.place[key] for key in item_keys(frame)], dtype=np.intp)

    @cached_property
    def features(self) -> NDArray[np.float64]:
        """(N, F), the pooled features scaled to these photographs."""
        return Scaling.fit(self.observed.pooled)(self.observed.pooled)


def run(bench: Bench[PersonalisedSettings]) -> Outcome:
    """Rank the query photographs of every test rater of role `raters`, by every method."""
    sets, raters = drawn_sets(bench)
    seen = observe(bench, sets, keep_tokens=bool(bench.settings.in_context))
    frames = [
        predict(bench, one, seen, in_context=shots in bench.settings.in_context)
        for (_, _, shots, _), one in sets.groupby(["dataset", "rater_id", "shots", "draw"])
    ]
    predictions = pd.concat(frames, ignore_index=True)
    table = per_rater(predictions)
    metrics: dict[str, Any] = {
        "labels": origin_of_labels(sets["origin"]),
        "raters": raters,
        "draws": bench.settings.draws,
        "readout": bench.settings.readout,
    }
    for shots in sorted({*PROTOCOL, *bench.settings.support}):
        metrics[f"at_{shots}"] = measure(table[table["shots"] == shots], raters, bench.bootstrap)
        if shots not in bench.settings.support:
            metrics[f"at_{shots}"] |= _not_asked(shots)
    return Outcome(metrics, predictions, PREDICTIONS, _plots(table, metrics["labels"]))


def drawn_sets(bench: Bench[PersonalisedSettings]) -> tuple[pd.DataFrame, int]:
    """Support and query rows of the draws asked for, with ratings on 1..10; and the number of test raters.

    Columns of SUPPORT, and rating, origin, crowd (null where unknown).

    Raises:
        EvaluationError: stage split has drawn nothing of that kind.
    """
    from calm.data.store import tables

    settings, keys = bench.settings, ["dataset", "item_id"]
    listed = bench.items("raters")[keys]
    names = sorted(listed["dataset"].unique())
    sets = pd.concat([tables.support_sets(bench.layout, name) for name in names]).merge(listed, on=keys)
    told = pd.concat([ratings_on_our_scale(bench, name) for name in names])
    single = told[told["rater_id"].notna()].rename(columns={"score": "rating"})
    raters = pd.concat([tables.raters(bench.layout, name) for name in names]).query("split == 'test'")
    rated = raters.merge(single.merge(listed, on=keys)[["dataset", "rater_id"]].drop_duplicates())
    sets = sets[sets["shots"].isin(settings.support) & (sets["draw"] < settings.draws)]
    if sets.empty:
        raise EvaluationError(
            f"task 'personalised': no test rater has {' or '.join(map(str, settings.support))} test ratings to show "
            "and enough others to rank; see data.split.raters (shots, least_queries) and "
            "evaluation.tasks.personalised.support in params.yaml"
        )
    single = single[["dataset", "item_id", "rater_id", "rating", "origin"]]
    crowd = told.loc[told["rater_id"].isna(), [*keys, "score"]].rename(columns={"score": "crowd"})
    joined = sets.merge(single, on=[*keys, "rater_id"], validate="many_to_one").merge(crowd, on=keys, how="left")
    return joined.sort_values(["dataset", "rater_id", "shots", "draw", "item_id"], ignore_index=True), len(rated)


def ratings_on_our_scale(bench: Bench[Any], dataset: str) -> pd.DataFrame:
    """A dataset's ratings with scores mapped onto 1..10."""
    from calm.data.store import tables

    told = tables.ratings(bench.layout, dataset)
    scores = zip(told["score"], told["score_min"], told["score_max"], strict=True)
    return told.assign(score=[rescale(*score) for score in scores])


def observe(bench: Bench[PersonalisedSettings], rows: pd.DataFrame, *, keep_tokens: bool) -> Seen:
    """Look once at every photograph of `rows`, whoever rated it.

    Visual tokens are kept for in-context scores alone: those of a few thousand photographs may not fit into memory.
    """
    import torch

    from calm.assistant.personal import Observed

    unique = rows[["dataset", "item_id"]].drop_duplicates().sort_values(["dataset", "item_id"], ignore_index=True)
    size = bench.params.evaluation.batch_size
    parts = []
    for images in bench.batches(unique):
        part = bench.model.observe(images, batch_size=size)
        parts.append(part if keep_tokens else replace(part, tokens=part.tokens[:0]))
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("pooled", "states", "expectation", "regression")
    }
    tokens = torch.cat([part.tokens for part in parts])
    observed = Observed(tokens, **arrays)
    place = {key: index for index, key in enumerate(item_keys(unique))}
    return Seen(place, observed, arrays[bench.settings.readout])


def predict(bench: Bench[PersonalisedSettings], one: pd.DataFrame, seen: Seen, *, in_context: bool) -> pd.DataFrame:
    """Query rows of one rater and draw, scored by every method (schema PREDICTIONS)."""
    shown, asked = one[one["part"] == "support"], one[one["part"] == "query"]
    given = shown["rating"].to_numpy(dtype=float)
    a, b = seen.rows(shown), seen.rows(asked)
    generic, observed = seen.generic, seen.observed
    found: dict[str, Any] = dict.fromkeys(METHODS)
    found["generic"] = generic[b]
    found["rater_mean"] = np.full(len(b), given.mean())
    found["ridge"] = generic[b] + ridge(seen.features[a], given - generic[a], seen.features[b])
    if in_context:
        context = bench.model.in_context(observed.tokens[a], given.tolist())
        expected, regressed = context.score(observed.tokens[b], batch_size=bench.params.evaluation.batch_size)
        found["in_context"] = regressed if bench.settings.readout == "regression" else expected
    found["crowd"] = asked["crowd"].to_numpy(dtype=float)
    frame: pd.DataFrame = asked.drop(columns=["part", "crowd"]).assign(**found)[PREDICTIONS.names]
    return frame.astype(dict.fromkeys(METHODS, "float64"))


def per_rater(predictions: pd.DataFrame) -> pd.DataFrame:
    """SRCC and MAE of each method for each rater and number of shots, mean over the draws in which it is defined.

    Columns dataset, rater_id, shots, method, srcc, mae; null where a method has no value in any draw.
    """
    rows = []
    for (dataset, rater, shots), one in predictions.groupby(["dataset", "rater_id", "shots"]):
        draws = [draw for _, draw in one.groupby("draw")]
        for method in METHODS:
            applied = [draw for draw in draws if draw[method].notna().all()]
            ranked = [value for draw in applied if (value := _srcc(draw[method], draw["rating"])) is not None]
            errors = [MAE.point(draw[method], draw["rating"]) for draw in applied]
            rows.append((dataset, rater, shots, method, _mean(ranked), _mean(errors)))
    return pd.DataFrame(rows, columns=["dataset", "rater_id", "shots", "method", "srcc", "mae"])


def _srcc(predicted: pd.Series, rating: pd.Series) -> float | None:
    try:
        return SRCC.point(predicted, rating)
    except UndefinedMetric:
        return None


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else np.nan


def measure(table: pd.DataFrame, raters: int, bootstrap: Bootstrap) -> dict[str, Any]:
    """Mean SRCC and MAE over raters for one number of shots, and paired gains in SRCC, intervals over raters."""
    there = table[["dataset", "rater_id"]].drop_duplicates().shape[0]
    metrics: dict[str, Any] = {"raters": there, "left_out": raters - there}
    wide = {name: table.pivot(index=["dataset", "rater_id"], columns="method", values=name) for name in ("srcc", "mae")}
    for method in METHODS:
        metrics[method] = {name: _over_raters(wide[name].get(method), method, bootstrap) for name in wide}
    metrics["gain"] = {
        method: {f"over_{base}": _gain(wide["srcc"], method, base, bootstrap) for base in ("generic", "ridge")}
        for method in PERSONAL
    }
    return metrics


def _over_raters(values: pd.Series | None, method: str, bootstrap: Bootstrap) -> dict[str, Any]:
    known = pd.Series(dtype=float) if values is None else values.dropna()
    if len(known):
        return mean(known, list(known.index), bootstrap).to_json()
    reasons = {"rater_mean": CONSTANT, "crowd": UNKNOWN, "in_context": OFF}
    return {"value": None, "n": 0, "reason": reasons.get(method, CONSTANT)}


def _gain(wide: pd.DataFrame, method: str, base: str, bootstrap: Bootstrap) -> dict[str, Any]:
    """Over the raters for whom both are defined; null for a method against itself."""
    if method == base or wide.empty:
        return {"value": None, "n": 0, "reason": "the same method" if method == base else "no rater"}
    gain = (wide[method] - wide[base]).dropna()
    return mean(gain, list(gain.index), bootstrap, difference=True).to_json()


def _not_asked(shots: int) -> dict[str, Any]:
    """The protocol's other number of shots, where params do not ask for it."""
    reason = f"evaluation.tasks.personalised.support does not ask for {shots}"
    nothing = {"value": None, "n": 0, "reason": reason}
    return {"left_out": None} | {method: {"srcc": nothing, "mae": nothing} for method in METHODS}


def _plots(table: pd.DataFrame, labels: str) -> dict[str, bytes]:
    drawn = {"raters.csv": plots.csv(table.dropna(subset=["mae"]))}
    for shots, rows in table.groupby("shots"):
        values = {name: rows.loc[rows["method"] == method, "srcc"].dropna() for method, name in METHODS.items()}
        drawn[f"raters-{shots}.svg"] = plots.strips(
            {name: one.to_numpy() for name, one in values.items() if len(one)},
            xlabel=f"SRCC of each rater, {shots} photographs shown ({labels} ratings)",
        )
    return drawn


TASK = Task(
    title="Personalised scoring",
    about="Do a few ratings of one person make the score theirs? SRCC per rater, averaged.",
    headlines=tuple(
        headline
        for shots in PROTOCOL
        for headline in (
            *(
                Headline(f"SRCC per rater, {METHODS[method]}, {shots} shown", f"at_{shots}.{method}.srcc")
                for method in ("ridge", "generic", "crowd", "in_context")
            ),
            *(
                Headline(f"gain by {METHODS[method]}, {shots} shown", f"at_{shots}.gain.{method}.over_generic")
                for method in PERSONAL
            ),
        )
    ),
    run=run,
    settings=PersonalisedSettings,
)
