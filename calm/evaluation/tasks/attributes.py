"""Is an edit recognised? Balanced accuracy of attribute states on held-out photographs, beside chance.

Every unedited test photograph is edited once for every state of every attribute, one edit at a time, and the model says
which state it sees. The labels are exact, because the edits are ours; the photographs are real. States that a
photograph cannot be brought into are left out: a grey one has no colour to lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from calm.attributes import LEVELS
from calm.attributes.edits import Edit, edited_copies, lacking
from calm.attributes.taxonomy import Attribute, State, Taxonomy, taxonomy
from calm.evaluation.base import ROW, Bench, EvaluationError, Headline, Outcome, Task, group_keys, load_model
from calm.evaluation.settings import TaskSettings
from calm.evaluation.statistics import plots
from calm.evaluation.statistics.metrics import Bootstrap, Estimate, weighted_mean
from calm.settings import PositiveInt

if TYPE_CHECKING:
    from PIL.Image import Image

    from calm.assistant import Calm

LEVEL_COLOURS = {"low": plots.ACCENT, "middle": plots.SERIES[3], "high": plots.THIRD}
PREDICTIONS = pa.schema(
    [
        *ROW,
        pa.field("level", pa.string(), nullable=False),
        pa.field("attribute", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),  # that the edit made
        pa.field("severity", pa.float64()),  # null = unchanged
        pa.field("recognised", pa.string(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),  # that the model gave the true state
    ]
)


class AttributesSettings(TaskSettings):
    """params.evaluation.tasks.attributes."""

    max_items: PositiveInt
    before: str | None  # folder of another model, whose figures stand beside this one's


def run(bench: Bench[AttributesSettings]) -> Outcome:
    """Recognise seeded edits of at most max_items unedited test photographs of role `unlabelled`."""
    known = taxonomy()
    rows = bench.items("unlabelled")
    rows = bench.at_most(rows[rows["synthetic_edits"].isna()].reset_index(drop=True), bench.settings.max_items)
    if rows.empty:
        raise EvaluationError("task 'attributes': the list of role 'unlabelled' has no unedited test photograph")
    models = [bench.model]
    if bench.settings.before is not None:
        models.append(load_model(bench.layout.root / bench.settings.before, bench.params))
    predictions, *told = _recognised(bench, models, known, rows)
    table, metrics = measure(predictions, known, bench.bootstrap)
    for earlier in told:
        for level, figures in measure(earlier, known, bench.bootstrap)[1].items():
            if level in LEVELS:
                metrics[level]["before"] = figures["balanced_accuracy"]
    return Outcome(metrics, predictions, PREDICTIONS, _plots(predictions, known, table))


def _recognised(
    bench: Bench[AttributesSettings], models: Sequence[Calm], known: Taxonomy, rows: pd.DataFrame
) -> list[pd.DataFrame]:
    """For each model a row of PREDICTIONS per photograph and state, `unchanged` from one look at the photograph."""
    found: list[list[tuple[Any, ...]]] = [[] for _ in models]
    for dataset, item_id, group in zip(rows["dataset"], rows["item_id"], rows["group"], strict=True):
        photograph = bench.photograph(dataset, item_id)
        without = lacking(photograph)
        cases = [(one, state) for one in known.attributes for state in one.states if not state.touches & without]
        rng = bench.rng("edits", dataset, item_id)
        severities, seeds = rng.uniform(size=len(cases)).tolist(), rng.integers(2**31, size=len(cases)).tolist()
        edits = [
            Edit(attribute.name, state.name, severity, seed)
            for (attribute, state), severity, seed in zip(cases, severities, seeds, strict=True)
        ]
        place = (dataset, item_id, group)
        for predicted, (as_taken, *seen) in zip(found, _seen(bench, models, photograph, edits), strict=True):
            for one in known.attributes:
                verdict = _verdict(as_taken[one.name], one.unchanged)
                predicted.append((*place, one.level, one.name, one.unchanged.name, None, *verdict))
            for (one, state), severity, answer in zip(cases, severities, seen, strict=True):
                verdict = _verdict(answer[one.name], state)
                predicted.append((*place, one.level, one.name, state.name, severity, *verdict))
    return [pd.DataFrame(predicted, columns=PREDICTIONS.names) for predicted in found]


def _seen(
    bench: Bench[AttributesSettings], models: Sequence[Calm], photograph: Image, edits: list[Edit]
) -> list[list[dict[str, dict[str, float]]]]:
    """What each model sees in the photograph as it was taken, and after each of the edits, alone."""
    size = bench.params.evaluation.batch_size
    seen = [model.attributes([photograph]) for model in models]
    for start in range(0, len(edits), size):
        copies = edited_copies(photograph, [[edit] for edit in edits[start : start + size]])
        for answers, model in zip(seen, models, strict=True):
            answers += model.attributes(copies)
    return seen


def _verdict(odds: dict[str, float], true: State) -> tuple[str, float]:
    """(recognised state, probability of the true state); of equally likely states the first by name."""
    return max(sorted(odds), key=odds.__getitem__), float(odds[true.name])


def measure(predictions: pd.DataFrame, known: Taxonomy, bootstrap: Bootstrap) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Balanced accuracy per attribute (a table) and per level (metrics), beside chance and what is asked."""
    found = {attribute.name: _of_attribute(predictions, attribute, bootstrap) for attribute in known.attributes}
    table = pd.DataFrame(
        [
            {
                "level": attribute.level,
                "attribute": attribute.name,
                "states": len(attribute.all_states),
                "chance": 1 / len(attribute.all_states),
                **{key: getattr(found[attribute.name][0], key) for key in ("value", "low", "high")},
            }
            for attribute in known.attributes
        ]
    )
    metrics: dict[str, Any] = {
        "labels": "exact: seeded edits of real photographs, one at a time",
        "photographs": int(predictions[["dataset", "item_id"]].drop_duplicates().shape[0]),
        "groups": len(set(group_keys(predictions))),
    }
    for level, rows in table.groupby("level", sort=False):
        draws = np.mean([found[name][1] for name in rows["attribute"]], axis=0)
        low, high = bootstrap.interval(draws)
        chance = float(rows["chance"].mean())
        figure = Estimate(float(rows["value"].mean()), low, high, metrics["photographs"])
        metrics[str(level)] = {
            "balanced_accuracy": figure.to_json(),
            "chance": round(chance, 6),
            "attribute": {name: round(float(v), 6) for name, v in zip(rows["attribute"], rows["value"], strict=True)},
        }
    return table, metrics


def _of_attribute(
    predictions: pd.DataFrame, attribute: Attribute, bootstrap: Bootstrap
) -> tuple[Estimate, NDArray[np.float64]]:
    """Balanced accuracy of one attribute and its value in every resample: the mean of the states' recalls."""
    from sklearn.metrics import balanced_accuracy_score

    rows = predictions[predictions["attribute"] == attribute.name]
    value = float(balanced_accuracy_score(rows["state"], rows["recognised"]))
    weights = bootstrap.weights(group_keys(rows))
    recalls = []
    for state in sorted(set(rows["state"])):
        of_state = (rows["state"] == state).to_numpy()
        hit = (rows["recognised"] == state).to_numpy()[of_state].astype(np.float64)
        recalls.append(weighted_mean(hit, weights[:, of_state]))
    draws: NDArray[np.float64] = np.mean(recalls, axis=0)
    low, high = bootstrap.interval(draws)
    return Estimate(value, low, high, len(rows)), draws


def _plots(predictions: pd.DataFrame, known: Taxonomy, table: pd.DataFrame) -> dict[str, bytes]:
    figures = {
        "attributes.csv": plots.csv(table),
        "attributes.svg": plots.bars(
            list(table["attribute"]),
            [Estimate(*row) for row in table[["value", "low", "high"]].astype(float).to_numpy().tolist()],
            beside=list(table["chance"]),
            beside_label="chance",
            xlabel="balanced accuracy, with interval over photographs",
            colours=[LEVEL_COLOURS[level] for level in table["level"]],
        ),
        "confusion.csv": plots.csv(predictions[["attribute", "state", "recognised"]]),
    }
    for attribute in known.attributes:
        rows = predictions[predictions["attribute"] == attribute.name]
        figures[f"confusion-{attribute.name}.svg"] = plots.confusion(
            confusion_counts(rows, attribute), [s.name for s in attribute.all_states], title=attribute.name
        )
    return figures


def confusion_counts(rows: pd.DataFrame, attribute: Attribute) -> NDArray[np.float64]:
    """Counts (true state, recognised state) in the order of the attribute's states."""
    from sklearn.metrics import confusion_matrix

    names = [state.name for state in attribute.all_states]
    counts: NDArray[np.float64] = confusion_matrix(rows["state"], rows["recognised"], labels=names).astype(float)
    return counts


TASK = Task(
    title="Attribute recognition",
    about="Is an edit of a held-out photograph recognised, level by level, by the model that people use?",
    headlines=tuple(
        Headline(
            f"balanced accuracy, {level} level",
            f"{level}.balanced_accuracy",
            (("chance", f"{level}.chance"), ("before fine-tuning", f"{level}.before.value")),
        )
        for level in LEVELS
    ),
    run=run,
    settings=AttributesSettings,
)
