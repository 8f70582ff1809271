"""Scores for one person from a few of their ratings (PIAA), against the generic score of the same photographs.

For each rater, `support` of their rated test photographs are shown and the others are ranked; no
near-duplicate of a shown photograph is ranked. The personal score is the generic one plus a ridge regression of what
the rater's ratings leave over, on the model's own features of the photographs; how strongly to regularise is chosen
inside the support set alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from calm.evaluation import plots
from calm.evaluation.base import Bench, EvaluationError, Headline, Outcome, Task, csv_bytes, origin_of_labels
from calm.evaluation.metrics import Bootstrap, UndefinedMetric, mean, srcc
from calm.params import PositiveInt, TaskSettings

LEAST_QUERIES = 5  # an SRCC of fewer photographs says next to nothing
ALPHAS = np.logspace(-2, 4, 13)  # up to where the ridge adds nothing and the generic score stands
READINGS = ("generic", "personal", "crowd")
PREDICTIONS = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("rater_id", pa.string(), nullable=False),
        pa.field("draw", pa.int32(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("rating", pa.float64(), nullable=False),
        pa.field("generic", pa.float64(), nullable=False),
        pa.field("personal", pa.float64(), nullable=False),
        pa.field("crowd", pa.float64()),  # the crowd's own score, where known: what a perfect generic model would say
        pa.field("origin", pa.string(), nullable=False),
    ]
)


class PersonalisedSettings(TaskSettings):
    """params.evaluation.tasks.personalised."""

    support: PositiveInt
    draws: PositiveInt


def run(bench: Bench[PersonalisedSettings]) -> Outcome:
    """Rank the unseen photographs of every rater of role `raters`."""
    rows, rated = _ratings(bench)
    size = bench.params.evaluation.batch_size
    scores = [score for images in bench.batches(rows) for score in bench.model.score(images, batch_size=size)]
    generic = np.array([score.expectation for score in scores])
    features = scaled(np.concatenate([bench.model.embed(images) for images in bench.batches(rows)]))
    place = {key: index for index, key in enumerate(zip(rows["dataset"], rows["item_id"], strict=True))}
    rated = rated.assign(row=[place[key] for key in zip(rated["dataset"], rated["item_id"], strict=True)])
    rated = rated.assign(group=rows["group"].to_numpy()[rated["row"]])
    found = [
        frame for _, one in rated.groupby(["dataset", "rater_id"]) for frame in _one(bench, one, generic, features)
    ]
    if not found:
        raise EvaluationError(
            f"task 'personalised': no rater has {bench.settings.support} test ratings to show and "
            f"{LEAST_QUERIES} of other photographs to rank; lower evaluation.tasks.personalised.support"
        )
    predictions = pd.concat(found, ignore_index=True)
    table = per_rater(predictions)
    metrics = measure(table, bench.bootstrap)
    metrics |= {
        "labels": origin_of_labels(rated["origin"]),
        "support": bench.settings.support,
        "draws": bench.settings.draws,
        "raters_left_out": rated[["dataset", "rater_id"]].drop_duplicates().shape[0] - len(table),
    }
    return Outcome(metrics, predictions, PREDICTIONS, _plots(table, metrics["labels"]))


def _ratings(bench: Bench) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rated test items, and single raters' ratings of them with the crowd's score beside."""
    from calm.data.tables import ratings

    rows = bench.items("raters")
    told = pd.concat([ratings(bench.layout, dataset) for dataset in sorted(rows["dataset"].unique())])
    keys = ["dataset", "item_id"]
    crowd = told.loc[told["rater_id"].isna(), [*keys, "score"]].rename(columns={"score": "crowd"})
    single = told.loc[told["rater_id"].notna(), [*keys, "rater_id", "score", "origin"]]
    single = single.rename(columns={"score": "rating"}).merge(rows[keys], on=keys).merge(crowd, on=keys, how="left")
    if single.empty:
        raise EvaluationError("task 'personalised': no test photograph of role 'raters' has a rating by a single rater")
    rows = rows.merge(single[keys].drop_duplicates(), on=keys).sort_values(keys, ignore_index=True)
    return rows, single.sort_values([*keys, "rater_id"], ignore_index=True)


def scaled(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Features of zero mean and unit variance over the photographs, over sqrt(D): the kernel's diagonal is about 1."""
    values = features.astype(np.float64)
    spread = values.std(axis=0)
    kept = spread > 1e-8
    if not kept.any():
        raise EvaluationError("task 'personalised': the model embeds all photographs alike")
    result: NDArray[np.float64] = (values - values.mean(axis=0))[:, kept] / spread[kept] / np.sqrt(kept.sum())
    return result


def _one(
    bench: Bench[PersonalisedSettings],
    rated: pd.DataFrame,
    generic: NDArray[np.float64],
    features: NDArray[np.float64],
) -> Iterator[pd.DataFrame]:
    """Query rows of one rater, for each draw of the support set that leaves enough photographs to rank."""
    dataset, rater = rated.iloc[0][["dataset", "rater_id"]]
    for draw in range(bench.settings.draws):
        rng = bench.rng("support", dataset, rater, str(draw))
        split = support_and_query(rated["group"].tolist(), bench.settings.support, rng)
        if split is None:
            continue
        shown, asked = rated.iloc[split[0]], rated.iloc[split[1]]
        base = generic[asked["row"]]
        left_over = shown["rating"].to_numpy(dtype=float) - generic[shown["row"]]
        yield asked[["dataset", "rater_id", "item_id", "rating", "crowd", "origin"]].assign(
            draw=np.int32(draw),
            generic=base,
            personal=base + ridge(features[shown["row"]], left_over, features[asked["row"]]),
        )[PREDICTIONS.names]


def support_and_query(groups: Sequence[str], size: int, rng: np.random.Generator) -> tuple[list[int], list[int]] | None:
    """Rows to show and rows to rank, sharing no group; None where too few would be left to rank.

    Groups are shown one after the other in drawn order, so that views of few photographs are shown and views of all
    others are left to rank; where each photograph is its own group, this is a plain draw of photographs.
    """
    order = list(map(int, rng.permutation(len(groups))))
    place = {group: number for number, group in enumerate(dict.fromkeys(groups[index] for index in order))}
    order.sort(key=lambda index: place[groups[index]])
    support = order[:size]
    shown = {groups[index] for index in support}
    query = sorted(index for index in order[size:] if groups[index] not in shown)
    if len(support) < size or len(query) < LEAST_QUERIES:
        return None
    return sorted(support), query


def ridge(
    shown: NDArray[np.float64], left_over: NDArray[np.float64], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Ridge regression fitted on the support set; its strength by leave-one-out inside that set alone."""
    from sklearn.linear_model import Ridge, RidgeCV

    model = RidgeCV(alphas=ALPHAS) if len(shown) > 1 else Ridge(alpha=float(ALPHAS[-1]))
    predicted: NDArray[np.float64] = model.fit(shown, left_over).predict(asked)
    return predicted


def per_rater(predictions: pd.DataFrame) -> pd.DataFrame:
    """SRCC of each reading for each rater, averaged over the draws in which it is defined."""
    rows = []
    for (dataset, rater), one in predictions.groupby(["dataset", "rater_id"]):
        draws = [_draw(frame) for _, frame in one.groupby("draw")]
        known = [values for values in draws if values is not None]
        if known:
            rows.append((dataset, rater, *np.mean(known, axis=0)))
    return pd.DataFrame(rows, columns=["dataset", "rater_id", *READINGS])


def _draw(frame: pd.DataFrame) -> list[float] | None:
    """SRCC of the readings in one draw, the crowd's NaN where unknown; None if the ratings or scores are constant."""
    try:
        values = [srcc(frame[name], frame["rating"]) for name in ("generic", "personal")]
        return [*values, srcc(frame["crowd"], frame["rating"]) if frame["crowd"].notna().all() else np.nan]
    except UndefinedMetric:
        return None


def measure(table: pd.DataFrame, bootstrap: Bootstrap) -> dict[str, Any]:
    """Mean SRCC over raters and the paired gain over the generic score, intervals over raters."""
    raters = list(zip(table["dataset"], table["rater_id"], strict=True))
    metrics: dict[str, Any] = {"raters": len(table)}
    for name in ("generic", "personal"):
        metrics[name] = {"srcc": mean(table[name], raters, bootstrap).to_json()}
    metrics["gain"] = {"srcc": mean(table["personal"] - table["generic"], raters, bootstrap).to_json()}
    known = table[table["crowd"].notna()]
    keys = [key for key, there in zip(raters, table["crowd"].notna(), strict=True) if there]
    metrics["crowd"] = {"srcc": mean(known["crowd"], keys, bootstrap).to_json()}
    return metrics


def _plots(table: pd.DataFrame, labels: str) -> dict[str, bytes]:
    return {
        "raters.svg": plots.scatter(
            table["generic"],
            {"personal": table["personal"]},
            xlabel=f"SRCC of the generic score, one point a rater ({labels})",
            ylabel="SRCC of the personal score",
        ),
        "raters.csv": csv_bytes(table),
    }


TASK = Task(
    title="Personalised scoring",
    about="Do a few ratings of one person make the score theirs? SRCC per rater, averaged.",
    headlines=(
        Headline("SRCC per rater, personal score", "personal.srcc", (("generic score", "generic.srcc.value"),)),
        Headline("gain over the generic score", "gain.srcc"),
        Headline("SRCC per rater, the crowd's true score", "crowd.srcc"),
    ),
    run=run,
    settings=PersonalisedSettings,
)
