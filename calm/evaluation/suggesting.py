"""Zero-shot suggestions: does the model suggest undoing what was really done to a held-out photograph?"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from math import comb
from typing import TYPE_CHECKING, Any

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
    elsewhere,
    group_keys,
    item_keys,
)
from calm.evaluation.editing import edit_labels, edited_copies, labels_of, lacking
from calm.evaluation.metrics import Bootstrap, Estimate, mean
from calm.params import PositiveInt, TaskSettings

if TYPE_CHECKING:
    from calm.attributes.taxonomy import Taxonomy

TOP = (1, 3)
KINDS = ("attribute", "state")  # named by its attribute; named by attribute and state
PREDICTIONS = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("edits", pa.list_(pa.string())),  # "attribute: state" of each known edit; null = not edited
        pa.field("made_here", pa.bool_(), nullable=False),  # edited by this task, not by the dataset
        pa.field("suggested", pa.list_(pa.string()), nullable=False),  # the same labels, best first
        pa.field("texts", pa.list_(pa.string()), nullable=False),
        pa.field("log_odds", pa.list_(pa.float64()), nullable=False),
    ]
)


class SuggestingSettings(TaskSettings):
    """params.evaluation.tasks.suggesting."""

    max_items: PositiveInt


def run(bench: Bench[SuggestingSettings]) -> Outcome:
    """Ask for suggestions on edited and unedited test photographs of role `scores`, each at most max_items."""
    from calm.attributes.taxonomy import taxonomy

    rows = bench.items("scores")
    most = bench.settings.max_items
    plain = bench.at_most(rows[rows["synthetic_edits"].isna()].reset_index(drop=True), most)
    views = bench.at_most(rows[rows["synthetic_edits"].notna()].reset_index(drop=True), most)
    parts = [_asked(bench, plain)]
    parts.append(_asked(bench, views) if len(views) else _edited_here(bench, plain, taxonomy()))
    predictions = pd.concat([part for part in parts if len(part)], ignore_index=True)
    edited = predictions[predictions["edits"].notna()].reset_index(drop=True)
    if edited.empty:
        raise EvaluationError("task 'suggesting': no edited test photograph in the list of role 'scores'")
    hits = hit_table(edited, taxonomy(), bench.rng("shuffle"))
    metrics = measure(hits, group_keys(edited), bench.bootstrap)
    metrics |= {
        "labels": "exact: known edits of real photographs",
        "items": len(edited),
        "groups": len(set(group_keys(edited))),
        "unedited": _unedited(predictions),
    }
    return Outcome(metrics, predictions, PREDICTIONS, _plots(metrics))


def _asked(bench: Bench, rows: pd.DataFrame) -> pd.DataFrame:
    """Suggestions for stored photographs (schema PREDICTIONS)."""
    answers = [answer for images in bench.batches(rows) for answer in bench.model.suggest(images, top=max(TOP))]
    edits = [edit_labels(text) for text in rows["synthetic_edits"]]
    return _table(rows, edits, answers, made_here=False)


def _edited_here(bench: Bench, rows: pd.DataFrame, known: Taxonomy) -> pd.DataFrame:
    """The same for seeded edits of unedited photographs: for datasets that come without edited views."""
    from calm.attributes.edits import draw_edits

    edits: list[list[str] | None] = []
    answers: list[Any] = []
    for dataset, item_id in item_keys(rows):
        rng = bench.rng("edits", dataset, item_id)
        photograph = bench.photograph(dataset, item_id)
        drawn = draw_edits(rng, int(rng.integers(1, 4)), known, avoid=lacking(photograph))
        edits.append(labels_of(drawn))
        answers += bench.model.suggest(edited_copies(photograph, [drawn]), top=max(TOP))
    return _table(rows, edits, answers, made_here=True)


def _table(rows: pd.DataFrame, edits: list[list[str] | None], answers: list[Any], *, made_here: bool) -> pd.DataFrame:
    return rows[["dataset", "item_id", "group"]].assign(
        edits=_lists(edits),
        made_here=made_here,
        suggested=_lists([f"{s.attribute}: {s.state}" for s in answer] for answer in answers),
        texts=_lists([s.text for s in answer] for answer in answers),
        log_odds=_lists([float(s.log_odds) for s in answer] for answer in answers),
    )


def _lists(values: Iterable[list[Any] | None]) -> pd.Series:
    """A column of lists, which pandas would otherwise try to unfold."""
    return pd.Series(list(values), dtype=object)


def hit_table(edited: pd.DataFrame, known: Taxonomy, rng: np.random.Generator) -> pd.DataFrame:
    """For each photograph, kind and top: is an edit among the suggestions, the same for another photograph's
    suggestions (`shuffled`), and the exact probability that a random ranking of all states hits (`uniform`).
    """
    labels = [f"{attribute.name}: {state.name}" for attribute in known.attributes for state in attribute.states]
    swap = elsewhere(group_keys(edited), rng)
    suggested = list(edited["suggested"])
    table: dict[str, list[float]] = {}
    for kind in KINDS:
        wanted = [{_key(label, kind) for label in edits} for edits in edited["edits"]]
        for top in TOP:
            name = f"{kind}_top{top}"
            table[name] = [_hit(w, suggested[i], kind, top) for i, w in enumerate(wanted)]
            table[f"{name}_shuffled"] = [_hit(w, suggested[swap[i]], kind, top) for i, w in enumerate(wanted)]
            right = [sum(_key(label, kind) in w for label in labels) for w in wanted]
            table[f"{name}_uniform"] = [1 - comb(len(labels) - r, top) / comb(len(labels), top) for r in right]
    return pd.DataFrame(table)


def _key(label: str, kind: str) -> str:
    return label.split(": ")[0] if kind == "attribute" else label


def _hit(wanted: set[str], suggested: Sequence[str], kind: str, top: int) -> float:
    return float(any(_key(label, kind) in wanted for label in suggested[:top]))


def measure(hits: pd.DataFrame, groups: Sequence[Hashable], bootstrap: Bootstrap) -> dict[str, Any]:
    """Share of photographs with a hit, its interval, chance by both measures, and the paired gain over shuffled."""
    metrics: dict[str, Any] = {}
    for kind in KINDS:
        for top in TOP:
            name = f"{kind}_top{top}"
            metrics[name] = mean(hits[name], groups, bootstrap).to_json() | {
                "chance": round(float(hits[f"{name}_uniform"].mean()), 6),
                "shuffled": round(float(hits[f"{name}_shuffled"].mean()), 6),
            }
    return metrics


def _unedited(predictions: pd.DataFrame) -> dict[str, Any]:
    """Nothing is known to be wrong with unedited photographs: is the model less sure of its best suggestion there?"""
    from sklearn.metrics import roc_auc_score

    strength = predictions["log_odds"].map(lambda values: values[0])
    edited = predictions["edits"].notna()
    result: dict[str, Any] = {"items": int((~edited).sum())}
    if edited.all():
        return result | {"sure_when_edited_auc": None, "reason": "no unedited photograph in the list"}
    return result | {
        "sure_when_edited_auc": round(float(roc_auc_score(edited, strength)), 6),
        "log_odds": round(float(strength[~edited].mean()), 6),
        "log_odds_when_edited": round(float(strength[edited].mean()), 6),
    }


def _plots(metrics: dict[str, Any]) -> dict[str, bytes]:
    names = [f"{kind}_top{top}" for kind in KINDS for top in TOP]
    table = [(name, metrics[name]["value"], metrics[name]["chance"], metrics[name]["shuffled"]) for name in names]
    return {
        "hits.svg": plots.bars(
            [name.replace("_top", ", top ") for name in names],
            [Estimate(*(metrics[name].get(key) for key in ("value", "low", "high"))) for name in names],
            beside=[metrics[name]["shuffled"] for name in names],
            beside_label="another photograph's suggestions",
            xlabel="share of edited photographs with a real edit named",
        ),
        "hits.csv": csv_bytes(pd.DataFrame(table, columns=["figure", "value", "chance", "shuffled"])),
    }


TASK = Task(
    title="Suggesting",
    about="Is the remedy of a photograph's known edit among the first suggestions?",
    headlines=tuple(
        Headline(
            f"{kind} named, top {top}",
            f"{kind}_top{top}",
            (("shuffled", f"{kind}_top{top}.shuffled"), ("random", f"{kind}_top{top}.chance")),
        )
        for kind in KINDS
        for top in TOP
    ),
    run=run,
    settings=SuggestingSettings,
)
