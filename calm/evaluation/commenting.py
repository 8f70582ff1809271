"""Generated comments of held-out photographs against reference comments (paper: on AVA-Captions).

Beside every figure stands what the same comments get when each is given to another photograph: fluent comments that say
nothing about the photograph in front of them score that much.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
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
    origin_of_labels,
)
from calm.evaluation.captions import BLEU, CaptionScores, bleu_from_counts, several_caption_scores, spice
from calm.evaluation.editing import edit_labels
from calm.evaluation.metrics import Bootstrap, Estimate, mean, weighted_mean
from calm.params import PositiveInt, TaskSettings

if TYPE_CHECKING:
    from calm.attributes.taxonomy import Taxonomy

METRICS = {"cider": "CIDEr", "meteor": "METEOR", "rouge_l": "ROUGE-L"} | {
    name: name.upper().replace("_", "-") for name in BLEU
}
NOT_RESAMPLED = "METEOR is computed over the whole set by Java; no interval"
NO_EDITS = "no photograph of the list has known edits"
# Words that carry no state: a rule made of these alone would fire on any comment.
FILLERS = frozenset(
    """
    a an and are as at be been by far for from has have in into is it its like looks of on or seems shot so that the
    there this to too very was were with image images photo photos photograph picture frame scene slightly rather quite
    little bit much clearly somewhat
    """.split()  # noqa: SIM905 (a list of 60 quoted words reads worse)
)
PREDICTIONS = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("comment", pa.string(), nullable=False),
        pa.field("shuffled", pa.string(), nullable=False),
        pa.field("references", pa.list_(pa.string()), nullable=False),
        pa.field("origin", pa.string(), nullable=False),  # of the references
        pa.field("rouge_l", pa.float64(), nullable=False),
        pa.field("cider", pa.float64(), nullable=False),
        pa.field("edits", pa.list_(pa.string())),  # "attribute: state" of each known edit; null = not edited
        pa.field("named", pa.list_(pa.string()), nullable=False),  # what the comment names, by the same labels
    ]
)


class CommentingSettings(TaskSettings):
    """params.evaluation.tasks.commenting."""

    max_items: PositiveInt
    max_new_tokens: PositiveInt


def run(bench: Bench[CommentingSettings]) -> Outcome:
    """Comment on at most max_items test photographs of role `comments`."""
    from calm.attributes.taxonomy import taxonomy

    rows = commented(bench)
    size, length = bench.params.evaluation.batch_size, bench.settings.max_new_tokens
    texts: list[str] = []
    for images in bench.batches(rows):
        texts += bench.model.comment(images, batch_size=size, max_new_tokens=length)
    others = [texts[i] for i in elsewhere(group_keys(rows), bench.rng("shuffle"))]
    own, shuffled = several_caption_scores([texts, others], list(rows["references"]))
    rules = naming_rules(taxonomy())
    predictions = rows[["dataset", "item_id", "group", "references", "origin", "edits"]].assign(
        comment=texts,
        shuffled=others,
        rouge_l=own.per_photo["rouge_l"],
        cider=own.per_photo["cider"],
        named=pd.Series([sorted(states_named(text, rules)) for text in texts], dtype=object),
    )
    metrics = _captions(own, shuffled, group_keys(rows), bench.bootstrap)
    metrics |= {"labels": origin_of_labels(rows["origin"]), "items": len(rows), "groups": len(set(group_keys(rows)))}
    metrics["spice"]["value"], reason = spice(texts, list(rows["references"]))
    if reason:
        metrics["spice"]["reason"] = reason
    metrics["names_an_edit"] = _naming(predictions, rules, bench.bootstrap)
    return Outcome(metrics, predictions, PREDICTIONS, _plots(metrics))


def commented(bench: Bench[CommentingSettings]) -> pd.DataFrame:
    """Test items with their reference comments: columns of ITEM, and references, origin, edits.

    Captions say what a photograph shows, answers what was asked about it: neither are references.
    """
    from calm.data.aspects import critiques
    from calm.data.tables import comments

    rows = bench.items("comments")
    tables = [comments(bench.layout, dataset) for dataset in sorted(rows["dataset"].unique())]
    told = pd.concat(tables).loc[critiques]
    told = told[told["text_clean"].str.contains(r"\w", regex=True)].sort_values(["dataset", "item_id", "comment_id"])
    grouped = told.groupby(["dataset", "item_id"])
    found = grouped.agg(references=("text_clean", list), origin=("origin", "first")).reset_index()
    rows = rows.merge(found, on=["dataset", "item_id"], how="inner", validate="one_to_one")
    if rows.empty:
        raise EvaluationError("task 'commenting': no test photograph of role 'comments' has a comment")
    rows = bench.at_most(rows.sort_values(["dataset", "item_id"], ignore_index=True), bench.settings.max_items)
    return rows.assign(edits=pd.Series([edit_labels(text) for text in rows["synthetic_edits"]], dtype=object))


def _captions(
    own: CaptionScores, shuffled: CaptionScores, groups: Sequence[Hashable], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Each caption metric with its interval over groups of photographs, and its value when shuffled."""
    weights = bootstrap.weights(groups)
    bleu = bleu_from_counts(own.bleu_counts, weights)
    metrics: dict[str, Any] = {"spice": {"n": len(groups)}}
    for name in METRICS:
        if name == "meteor":
            figure = Estimate(own.corpus[name], n=len(groups), reason=NOT_RESAMPLED)
        else:
            draws = bleu[:, BLEU.index(name)] if name in BLEU else weighted_mean(own.per_photo[name], weights)
            figure = Estimate(own.corpus[name], *bootstrap.interval(draws), len(groups))
        metrics[name] = figure.to_json() | {"shuffled": round(shuffled.corpus[name], 6)}
    return metrics


Rules = dict[str, list[frozenset[str]]]


def naming_rules(known: Taxonomy) -> Rules:
    """For each 'attribute: state', the sets of words of which one has to occur in a sentence that names it."""
    rules: Rules = {}
    for attribute in known.attributes:
        for state in attribute.states:
            texts = (*state.phrases, *state.nouns, *state.remedies)
            words = {_words(re.sub(r"\{\w+\}", " ", text)) for text in texts}
            rules[f"{attribute.name}: {state.name}"] = sorted((w for w in words if w), key=lambda w: sorted(w))
    return rules


def states_named(comment: str, rules: Rules) -> set[str]:
    """The 'attribute: state' labels that a comment names: a sentence holds all content words of a phrase."""
    sentences = [_words(sentence) for sentence in re.split(r"[.!?;\n]+", comment)]
    return {label for label, sets in rules.items() if any(w <= sentence for w in sets for sentence in sentences)}


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())) - FILLERS


def _naming(predictions: pd.DataFrame, rules: Rules, bootstrap: Bootstrap) -> dict[str, Any]:
    """Share of edited photographs whose comment names one of their edits, own and shuffled comments."""
    rows = predictions[predictions["edits"].notna()]
    if rows.empty:
        return {"value": None, "reason": NO_EDITS}
    groups = group_keys(rows)
    result: dict[str, Any] = {}
    for kind, part in (("attribute", 0), ("state", 1)):
        own = [_hit(edits, named, part) for edits, named in zip(rows["edits"], rows["named"], strict=True)]
        others = [states_named(text, rules) for text in rows["shuffled"]]
        chance = [_hit(edits, named, part) for edits, named in zip(rows["edits"], others, strict=True)]
        result[kind] = mean(own, groups, bootstrap).to_json() | {"shuffled": round(float(np.mean(chance)), 6)}
    return result


def _hit(edits: Iterable[str], named: Iterable[str], part: int) -> float:
    """1 if an edit is named: by its attribute (part 0) or by attribute and state (part 1)."""
    keys = [{label.split(": ")[0] if part == 0 else label for label in labels} for labels in (edits, named)]
    return float(bool(keys[0] & keys[1]))


def _plots(metrics: dict[str, Any]) -> dict[str, bytes]:
    names = [name for name in METRICS if name != "cider"]  # CIDEr is on another scale (0..10)
    own = [Estimate(*(metrics[name].get(key) for key in ("value", "low", "high"))) for name in names]
    table = [(name, metrics[name]["value"], metrics[name]["shuffled"]) for name in METRICS]
    return {
        "captions.svg": plots.bars(
            [METRICS[name] for name in names],
            own,
            beside=[metrics[name]["shuffled"] for name in names],
            beside_label="comments shuffled between photographs",
            xlabel="score against the reference comments",
        ),
        "captions.csv": csv_bytes(pd.DataFrame(table, columns=["metric", "value", "shuffled"])),
    }


TASK = Task(
    title="Aesthetic commenting",
    about="Do generated comments say what the reference comments of the same photograph say?",
    headlines=(
        *(
            Headline(
                f"names a real edit ({kind})",
                f"names_an_edit.{kind}",
                (("shuffled", f"names_an_edit.{kind}.shuffled"),),
            )
            for kind in ("state", "attribute")
        ),
        *(Headline(label, name, (("shuffled", f"{name}.shuffled"),)) for name, label in METRICS.items()),
        Headline("SPICE", "spice"),
    ),
    run=run,
    settings=CommentingSettings,
)
