"""Zero-shot suggestions: does the model suggest undoing what was really done to a held-out photograph?

No public protocol exists; docs/evaluation.md publishes this one. Two ways of suggesting are judged alike: what calm
suggests (states that the Q-formers recognise, with calibrated probabilities), and remedies that the language model
alone ranks (the paper's zero-shot way).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from calm.attributes.edits import Edit, draw_edits, edit_labels, edited_copies, labels_of, lacking
from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.evaluation.base import (
    ROW,
    Bench,
    EvaluationError,
    Headline,
    Outcome,
    Pair,
    Task,
    group_keys,
    item_keys,
    origin_of_labels,
    paired_means,
    rated,
)
from calm.evaluation.settings import TaskSettings
from calm.evaluation.statistics.decisions import KINDS, Labels, cross_fitted, elsewhere, figures, hits, key, keys
from calm.evaluation.statistics.metrics import Bootstrap, mean
from calm.settings import PositiveInt

if TYPE_CHECKING:
    from PIL.Image import Image

    from calm.assistant import Remedy, Suggestion

TOP = (1, 3)
PROTOCOL = "calm-suggesting-2"
WAYS = {"suggested": "as calm suggests", "language": "language model alone"}
PREDICTIONS = pa.schema(
    [
        *ROW,
        pa.field("edits", pa.list_(pa.string())),  # "attribute: state" of each known edit; null = not edited
        pa.field("made_here", pa.bool_(), nullable=False),  # edited by this task, not by the dataset
        pa.field("suggested", pa.list_(pa.string()), nullable=False),  # each attribute's likeliest change, in order
        pa.field("probabilities", pa.list_(pa.float64()), nullable=False),  # of these
        pa.field("suggested_made", pa.list_(pa.string()), nullable=False),  # what calm tells people to change
        pa.field("texts", pa.list_(pa.string()), nullable=False),  # in these words
        pa.field("language", pa.list_(pa.string()), nullable=False),  # as the language model alone ranks, best first
        pa.field("log_odds", pa.list_(pa.float64()), nullable=False),  # of these
        pa.field("language_made", pa.list_(pa.string()), nullable=False),  # those that pass a threshold
    ]
)


class SuggestingSettings(TaskSettings):
    """params.evaluation.tasks.suggesting."""

    max_items: PositiveInt
    rated: PositiveInt | None  # rated photographs, at most, of which what is told is held against their scores


def run(bench: Bench[SuggestingSettings]) -> Outcome:
    """Ask for suggestions on edited and unedited test photographs of role `scores`, each at most max_items."""
    plain, views = chosen(bench)
    parts = [_asked(bench, plain)]
    parts.append(_asked(bench, views) if len(views) else _edited_here(bench, plain))
    predictions = pd.concat([part for part in parts if len(part)], ignore_index=True)
    known, bootstrap = taxonomy(), bench.bootstrap
    if predictions["edits"].isna().all():
        raise EvaluationError("task 'suggesting': no edited test photograph in the list of role 'scores'")
    metrics: dict[str, Any] = {"protocol": PROTOCOL, "labels": "exact: known edits of real photographs"}
    edits = [list(one) if one is not None else [] for one in predictions["edits"]]
    predictions["language_made"] = _lists(_decided(predictions, edits, bench.rng("halves")))
    edited = predictions[predictions["edits"].notna()].reset_index(drop=True)
    swap = elsewhere(group_keys(edited), bench.rng("shuffle"))
    metrics |= measure(hit_table(edited, known, swap, "suggested"), group_keys(edited), bootstrap)
    metrics["language"] = measure(hit_table(edited, known, swap, "language"), group_keys(edited), bootstrap)
    metrics["decided"] = _decisions(predictions, edits, bench)
    metrics |= {
        "items": len(edited),
        "groups": len(set(group_keys(edited))),
        "unedited": _unedited(predictions),
    }
    if bench.settings.rated:
        metrics["rated"] = _rated(bench, bench.settings.rated)
    return Outcome(metrics, predictions[PREDICTIONS.names], PREDICTIONS)


def chosen(bench: Bench[SuggestingSettings]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Items without edits, and items that the dataset itself has edited."""
    rows = bench.items("scores")
    edited = rows["synthetic_edits"].notna()
    plain, views = (
        bench.at_most(part.reset_index(drop=True), bench.settings.max_items) for part in (rows[~edited], rows[edited])
    )
    return plain, views


def edits_here(bench: Bench[SuggestingSettings], dataset: str, item_id: str) -> tuple[Edit, ...]:
    """The edits that this task makes of an unedited photograph, where a dataset has no edited ones: drawn by seed."""
    rng = bench.rng("edits", dataset, item_id)
    avoid = lacking(bench.photograph(dataset, item_id))
    return draw_edits(rng, int(rng.integers(1, 4)), taxonomy(), avoid=avoid)


def _decided(predictions: pd.DataFrame, edits: Labels, rng: np.random.Generator) -> list[list[str]]:
    """Of the language model's ranking, the suggestions that pass a threshold from the other half of the groups."""
    first = predictions[["language", "log_odds"]].map(lambda values: values[: max(TOP)])
    return cross_fitted(first["language"].tolist(), first["log_odds"].tolist(), edits, group_keys(predictions), rng)


def _decisions(predictions: pd.DataFrame, edits: Labels, bench: Bench[SuggestingSettings]) -> dict[str, Any]:
    """Precision, recall and what is left alone, of each way, and of its answers shuffled between photographs."""
    groups = group_keys(predictions)
    swap = elsewhere(groups, bench.rng("shuffle decisions"))
    found: dict[str, Any] = {}
    for way in WAYS:
        made = predictions[f"{way}_made"].tolist()
        found[way] = figures(made, edits, groups, bench.bootstrap)
        found[way]["shuffled"] = figures([made[index] for index in swap], edits, groups, bench.bootstrap)
    return found


def _asked(bench: Bench[SuggestingSettings], rows: pd.DataFrame) -> pd.DataFrame:
    """Suggestions for stored photographs."""
    edits = [edit_labels(text) for text in rows["synthetic_edits"]]
    return _table(bench, rows, edits, bench.batches(rows), made_here=False)


def _edited_here(bench: Bench[SuggestingSettings], rows: pd.DataFrame) -> pd.DataFrame:
    """The same for seeded edits of unedited photographs: for datasets that come without edited views."""
    drawn = [edits_here(bench, *place) for place in item_keys(rows)]
    pairs = zip(item_keys(rows), drawn, strict=True)
    copies = (edited_copies(bench.photograph(*place), [edits]) for place, edits in pairs)
    return _table(bench, rows, [labels_of(one) for one in drawn], copies, made_here=True)


def _table(
    bench: Bench[SuggestingSettings],
    rows: pd.DataFrame,
    edits: Sequence[list[str] | None],
    batches: Iterable[list[Image]],
    *,
    made_here: bool,
) -> pd.DataFrame:
    """What the model says of photographs, by every way: the columns of PREDICTIONS but the decisions."""
    found: list[Sequence[tuple[str, str, float]]] = []
    made: list[list[Suggestion]] = []
    ranked: list[Sequence[Remedy]] = []
    for images in batches:
        found += bench.model.recognise(images)
        made += [[one for one in of if one.attribute is not None] for of in bench.model.suggest(images, top=max(TOP))]
        ranked += bench.model.rank_remedies(images)
    language = [[f"{remedy.attribute}: {remedy.state}" for remedy in one] for one in ranked]
    suggested = [[f"{attribute}: {state}" for attribute, state, _ in one] for one in found]
    return rows[["dataset", "item_id", "group"]].assign(
        edits=_lists(edits),
        made_here=made_here,
        suggested=_lists(suggested),
        probabilities=_lists([float(share) for *_, share in one] for one in found),
        suggested_made=_lists([f"{s.attribute}: {s.state}" for s in one] for one in made),
        texts=_lists([s.text for s in one] for one in made),
        language=_lists(language),
        log_odds=_lists([float(remedy.log_odds) for remedy in one] for one in ranked),
    )


def _lists(values: Iterable[list[Any] | None]) -> pd.Series:
    """A column of lists, which pandas would otherwise try to unfold."""
    return pd.Series(list(values), dtype=object)


def hit_table(edited: pd.DataFrame, known: Taxonomy, swap: Sequence[int], ranking: str) -> pd.DataFrame:
    """For each photograph, kind and top: is an edit among the suggestions of column `ranking`, the same for another
    photograph's suggestions (`shuffled`), and the exact probability of a random ranking of all states (`uniform`).
    """
    labels = [f"{attribute.name}: {state.name}" for attribute in known.attributes for state in attribute.states]
    table: dict[str, list[float]] = {}
    for kind in KINDS:
        for top in TOP:
            name = f"{kind}_top{top}"
            first = [ranked[:top] for ranked in edited[ranking]]
            table[name] = hits(list(edited["edits"]), first, kind)
            table[f"{name}_shuffled"] = hits(list(edited["edits"]), [first[index] for index in swap], kind)
            right = [sum(key(label, kind) in keys(edits, kind) for label in labels) for edits in edited["edits"]]
            table[f"{name}_uniform"] = [1 - comb(len(labels) - r, top) / comb(len(labels), top) for r in right]
    return pd.DataFrame(table)


def measure(hits: pd.DataFrame, groups: Sequence[Hashable], bootstrap: Bootstrap) -> dict[str, Any]:
    """Share of photographs with a hit, its interval, chance by both measures, and the paired gain over shuffled."""
    metrics: dict[str, Any] = {}
    for kind in KINDS:
        for top in TOP:
            name = f"{kind}_top{top}"
            gain = hits[name] - hits[f"{name}_shuffled"]
            metrics[name] = mean(hits[name], groups, bootstrap).to_json() | {
                "chance": round(float(hits[f"{name}_uniform"].mean()), 6),
                "shuffled": round(float(hits[f"{name}_shuffled"].mean()), 6),
                "over_shuffled": mean(gain, groups, bootstrap).to_json(),
            }
    return metrics


def _unedited(predictions: pd.DataFrame) -> dict[str, Any]:
    """Nothing is known to be wrong with unedited photographs: is the model less sure of its best suggestion there?"""
    from sklearn.metrics import roc_auc_score

    strength = predictions["probabilities"].map(lambda values: values[0])
    edited = predictions["edits"].notna()
    result: dict[str, Any] = {"items": int((~edited).sum())}
    if edited.all():
        return result | {"sure_when_edited_auc": None, "reason": "no unedited photograph in the list"}
    return result | {
        "sure_when_edited_auc": round(float(roc_auc_score(edited, strength)), 6),
        "probability": round(float(strength[~edited].mean()), 6),
        "probability_when_edited": round(float(strength[edited].mean()), 6),
    }


def compared(first: pd.DataFrame, second: pd.DataFrame, bootstrap: Bootstrap) -> list[Pair]:
    """First suggestions of two models for edited photographs, and those of their language models alone."""
    edited = first["edits"].notna().to_numpy()
    groups = group_keys(first[edited])
    pairs = []
    for way, name in WAYS.items():
        ours, theirs = (
            hits(list(one.loc[edited, "edits"]), [ranked[:1] for ranked in one.loc[edited, way]], "state")
            for one in (first, second)
        )
        pairs.append(paired_means(f"first suggestion: a real edit (state), {name}", ours, theirs, groups, bootstrap))
    return pairs


DECIDED = {
    "state.precision": "precision by state",
    "state.recall": "recall by state",
    "unedited_left_alone": "unedited left as they are",
    "edited_left_alone": "edited left as they are",
}


def _rated(bench: Bench[SuggestingSettings], most: int) -> dict[str, Any]:
    """How often a flaw is told of test photographs as they are, which nobody has edited, by the first public's scores.

    Nobody said what is wrong with them; but of those that people score lowest much is, of those above their median
    little.
    """
    rows = rated(bench, "test")
    rows = rows[(rows["dataset"] == bench.params.data.roles.scores[0]) & rows["synthetic_edits"].isna()]
    rows = bench.at_most(rows.reset_index(drop=True), most)
    answers = (one for images in bench.batches(rows) for one in bench.model.suggest(images, top=1))
    told = pd.Series([float(answer[0].attribute is not None) for answer in answers])
    place = rows["score"].rank(method="first")
    parts = {"lowest_tenth": place <= max(1, len(rows) / 10), "upper_half": place > len(rows) / 2}
    shares = {name: mean(told[part], group_keys(rows[part]), bench.bootstrap).to_json() for name, part in parts.items()}
    return {"labels": origin_of_labels(rows["origin"]), "items": len(rows), **shares}


TASK = Task(
    title="Suggesting",
    about="Is the remedy of a photograph's known edit suggested, and is a photograph without any left alone?",
    headlines=(
        *(
            Headline.shuffled(
                f"{kind} named, top {top}",
                f"{kind}_top{top}",
                ("random", f"{kind}_top{top}.chance"),
                ("language model alone", f"language.{kind}_top{top}.value"),
            )
            for kind in KINDS
            for top in TOP
        ),
        Headline.shuffled(
            "attribute named, top 3, language model alone",
            "language.attribute_top3",
            ("random", "language.attribute_top3.chance"),
        ),
        Headline("the same, minus shuffled", "language.attribute_top3.over_shuffled"),
        *(
            Headline(
                f"{label}, {name}",
                f"decided.{way}.{figure}",
                (("shuffled", f"decided.{way}.shuffled.{figure}.value"),),
            )
            for figure, label in DECIDED.items()
            for way, name in WAYS.items()
        ),
        Headline("told of a flaw, the tenth that people score lowest", "rated.lowest_tenth"),
        Headline("told of a flaw, the half that people score best", "rated.upper_half"),
    ),
    run=run,
    settings=SuggestingSettings,
    compared=compared,
)
