"""Generated comments of held-out photographs against reference comments (paper: on AVA-Captions).

Beside every figure stands what the same comments get when each is given to another photograph: fluent comments that say
nothing about the photograph in front of them score that much.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from calm.attributes.edits import edit_labels
from calm.attributes.grammar import STANDINGS, Rules, naming_rules, standing_of, states_named
from calm.attributes.taxonomy import taxonomy
from calm.data.store.tables import comments
from calm.data.store.text import critiques
from calm.evaluation.base import (
    ROW,
    Bench,
    EvaluationError,
    Headline,
    Outcome,
    Pair,
    Task,
    group_keys,
    origin_of_labels,
    paired_means,
    rated,
)
from calm.evaluation.settings import TaskSettings
from calm.evaluation.statistics.captions import BLEU, CaptionScores, scored, tokenised
from calm.evaluation.statistics.decisions import KINDS, elsewhere, figures, hits
from calm.evaluation.statistics.jars import spice
from calm.evaluation.statistics.metrics import SRCC, Bootstrap, Estimate, Vector, estimate, mean
from calm.settings import PositiveInt

METRICS = {
    "cider": "CIDEr-D (pycocoevalcap's CIDEr)",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    **{name: name.upper().replace("_", "-") for name in BLEU},
    "cider_original": "CIDEr as first defined",
}
FORMS = {
    "usual": "all references at once; BLEU and METEOR from counts of the whole set, the others mean over photographs",
    "best_over_references": "the best over a photograph's references taken singly, mean over photographs",
}
NO_EDITS = "no photograph of the list has known edits"
PREDICTIONS = pa.schema(
    [
        *ROW,
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
    verdicts: PositiveInt | None  # rated photographs, at most, whose verdicts are held against their scores


def run(bench: Bench[CommentingSettings]) -> Outcome:
    """Comment on at most max_items test photographs of role `comments`."""
    rows = commented(bench)
    texts = _comments(bench, rows)
    others = [texts[i] for i in elsewhere(group_keys(rows), bench.rng("shuffle"))]
    tokens = tokenised([texts, others], list(rows["references"]))
    weights = bench.bootstrap.weights(group_keys(rows))
    own = scored(tokens.captions[0], tokens.references, weights=weights)
    shuffled = scored(tokens.captions[1], tokens.references)
    rules = naming_rules(taxonomy())
    predictions = rows[["dataset", "item_id", "group", "references", "origin", "edits"]].assign(
        comment=texts,
        shuffled=others,
        rouge_l=own.per_photo["rouge_l"],
        cider=own.per_photo["cider"],
        named=pd.Series([states_named(text, rules) for text in texts], dtype=object),
    )
    metrics = _captions(own, shuffled, bench.bootstrap)
    metrics |= {"labels": origin_of_labels(rows["origin"]), "items": len(rows), "groups": len(set(group_keys(rows)))}
    metrics["spice"] = {"n": len(rows)} | spice(tokens.captions[0], tokens.references)
    metrics["diversity"] = _diversity(tokens.captions[0], [texts[0] for texts in tokens.references])
    gain = own.per_photo["cider"] - shuffled.per_photo["cider"]
    metrics["cider"]["over_shuffled"] = mean(gain, group_keys(rows), bench.bootstrap).to_json()
    metrics["names_an_edit"] = _naming(predictions, rules, bench.bootstrap)
    if bench.settings.verdicts:
        metrics["verdicts"] = _verdicts(bench, bench.settings.verdicts)
    return Outcome(metrics, predictions, PREDICTIONS)


def _comments(bench: Bench[CommentingSettings], rows: pd.DataFrame) -> list[str]:
    """What the model says of each photograph."""
    size, length = bench.params.evaluation.batch_size, bench.settings.max_new_tokens
    batches = (bench.model.comment(images, batch_size=size, max_new_tokens=length) for images in bench.batches(rows))
    return list(chain.from_iterable(batches))


def commented(bench: Bench[CommentingSettings]) -> pd.DataFrame:
    """Test items with their reference comments: columns of ITEM, and references, origin, edits.

    Captions say what a photograph shows, answers what was asked about it: neither are references.
    """
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


def _captions(own: CaptionScores, shuffled: CaptionScores, bootstrap: Bootstrap) -> dict[str, Any]:
    """Each caption metric in both forms, with its interval over groups of photographs and its value when shuffled."""
    count = len(own.per_photo["cider"])

    def stored(values: dict[str, float], draws: dict[str, Vector], others: dict[str, float]) -> dict[str, Any]:
        return {
            name: Estimate(value, *bootstrap.interval(draws[name]), count).to_json()
            | {"shuffled": round(others[name], 6)}
            for name, value in values.items()
        }

    metrics = stored(own.corpus, own.draws, shuffled.corpus)
    return metrics | {"forms": FORMS, "best_over_references": stored(own.best, own.best_draws, shuffled.best)}


def _diversity(captions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """How much the comments differ from one another: distinct n-grams over all n-grams, and lengths in words.

    The share of distinct n-grams falls as a set grows, so the first reference of each photograph stands beside it; a
    resample repeats comments, so there is no bootstrap interval for it.
    """
    told = {"comments": captions, "references": references}
    found: dict[str, Any] = {
        kind: {f"distinct_{n}": distinct(texts, n) for n in (1, 2)} for kind, texts in told.items()
    }
    for kind, texts in told.items():
        found[kind]["words"] = round(float(np.mean([len(text.split()) for text in texts])), 6)
    found["different_comments"] = {"value": round(len(set(captions)) / len(captions), 6), "n": len(captions)}
    return found


def distinct(texts: Sequence[str], n: int) -> float | None:
    """distinct-n (Li et al., 2016): different n-grams over n-grams of all tokenised texts; None without any."""
    words = [text.split() for text in texts]
    ngrams = [tuple(one[i : i + n]) for one in words for i in range(len(one) - n + 1)]
    return round(len(set(ngrams)) / len(ngrams), 6) if ngrams else None


def _naming(predictions: pd.DataFrame, rules: Rules, bootstrap: Bootstrap) -> dict[str, Any]:
    """Share of edited photographs whose comment names one of their edits, own and shuffled comments.

    And of all states that comments name, how many are really there (precision), and the other way round (recall).
    """
    rows = predictions[predictions["edits"].notna()]
    if rows.empty:
        return {"value": None, "reason": NO_EDITS}
    groups = group_keys(rows)
    result: dict[str, Any] = {}
    others = [states_named(text, rules) for text in rows["shuffled"]]
    for kind in KINDS:
        own, chance = (hits(list(rows["edits"]), named, kind) for named in (list(rows["named"]), others))
        result[kind] = mean(own, groups, bootstrap).to_json() | {"shuffled": round(float(np.mean(chance)), 6)}
    pooled = figures(list(rows["named"]), list(rows["edits"]), groups, bootstrap)["state"]
    return result | {name: pooled[name] for name in ("precision", "recall")}


def _verdicts(bench: Bench[CommentingSettings], most: int) -> dict[str, Any]:
    """Whether verdicts follow people's scores, on test photographs that the first public rated.

    `given` is the share of comments with a verdict; the others name flaws. `srcc` is that of low, middle, high with the
    score, over comments with a verdict, and `scores` the mean score on 1..10 beside each.
    """
    rows = rated(bench, "test")
    rows = bench.at_most(rows[rows["dataset"] == bench.params.data.roles.scores[0]].reset_index(drop=True), most)
    ranks = pd.Series([standing_of(text) for text in _comments(bench, rows)]).map(STANDINGS.index, na_action="ignore")
    given = ranks.notna()
    said, scores, groups = ranks[given].astype(int), rows["score"][given], group_keys(rows[given])
    return {
        "labels": origin_of_labels(rows["origin"]),
        "given": mean(given.astype(float), group_keys(rows), bench.bootstrap).to_json(),
        "srcc": estimate(SRCC, said, scores, groups, bench.bootstrap).to_json(),
        "scores": {STANDINGS[rank]: round(float(part.mean()), 6) for rank, part in scores.groupby(said)},
        "named": {STANDINGS[rank]: len(part) for rank, part in scores.groupby(said)},
    }


def compared(first: pd.DataFrame, second: pd.DataFrame, bootstrap: Bootstrap) -> list[Pair]:
    """Comments of two models: is a real edit named, and how near do they come to the references?"""
    edited = first["edits"].notna().to_numpy()
    ours, theirs = (
        hits(list(one.loc[edited, "edits"]), list(one.loc[edited, "named"]), "state") for one in (first, second)
    )
    return [
        paired_means("comments: a real edit named (state)", ours, theirs, group_keys(first[edited]), bootstrap),
        paired_means("comments: CIDEr-D", list(first["cider"]), list(second["cider"]), group_keys(first), bootstrap),
    ]


TASK = Task(
    title="Aesthetic commenting",
    about="Do generated comments say what the reference comments of the same photograph say?",
    headlines=(
        *(Headline.shuffled(f"names a real edit ({kind})", f"names_an_edit.{kind}") for kind in ("state", "attribute")),
        *(Headline.shuffled(label, name) for name, label in METRICS.items()),
        Headline("CIDEr-D, minus shuffled", "cider.over_shuffled"),
        Headline("different comments", "diversity.different_comments"),
        Headline("SPICE", "spice"),
        *(
            Headline.shuffled(f"{METRICS[name]}, best over references", f"best_over_references.{name}")
            for name in ("cider", "meteor", "rouge_l", *BLEU)
        ),
        Headline("states named that are there (precision)", "names_an_edit.precision"),
        Headline("states there that are named (recall)", "names_an_edit.recall"),
        Headline("comments of rated photographs with a verdict", "verdicts.given"),
        Headline("SRCC of these verdicts with the score", "verdicts.srcc"),
    ),
    run=run,
    settings=CommentingSettings,
    compared=compared,
)
