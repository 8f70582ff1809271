"""How answers are measured: calm's own functions, called by lmms-eval. Functions named in tasks/*.yaml.

`*_results` of one answer give what the figures are computed from; the others are given those of all documents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import pandas as pd

from calm.assistant.answers import SUGGESTION_FORM
from calm.attributes.grammar import Rules, naming_rules, states_named
from calm.attributes.taxonomy import taxonomy
from calm.evaluation.statistics import captions, decisions
from calm.evaluation.statistics.metrics import MAE, PLCC, SRCC, Bootstrap, Metric, UndefinedMetric
from calm.evaluation.tasks import personalised
from calm.instructions import parse_score

Document = dict[str, Any]
Pairs = Sequence[tuple[float | None, float]]
NO_INTERVALS = Bootstrap(samples=1, level=0.95, seed=0)  # lmms-eval shows the figures alone
ALL_DIGITS = re.compile(r"-?\d+\.\d{4,}")  # how calm's model writes a readout that is no text, and may leave the scale


def number(answer: str) -> float | None:
    """The score that an answer names; None if none."""
    return float(answer) if ALL_DIGITS.fullmatch(answer) else parse_score(answer)


def score_results(document: Document, answers: Sequence[str]) -> dict[str, Any]:
    """(score said, score given) for every figure."""
    return dict.fromkeys(("srcc", "plcc", "mae", "unparseable"), (number(answers[0]), document["score"]))


def _figure(metric: Metric, pairs: Pairs) -> float:
    known = [(said, given) for said, given in pairs if said is not None]
    try:
        return metric.point(*zip(*known, strict=True)) if known else float("nan")
    except UndefinedMetric:
        return float("nan")


def srcc(pairs: Pairs) -> float:
    """Over the answers that name a score, as `calm evaluate scoring`."""
    return _figure(SRCC, pairs)


def plcc(pairs: Pairs) -> float:
    """The same."""
    return _figure(PLCC, pairs)


def mae(pairs: Pairs) -> float:
    """The same, in points."""
    return _figure(MAE, pairs)


def unparseable(pairs: Pairs) -> float:
    """Share of answers that name no score."""
    return sum(said is None for said, _ in pairs) / len(pairs)


def comment_results(document: Document, answers: Sequence[str]) -> dict[str, Any]:
    """The comment and its references, for every figure."""
    return dict.fromkeys(("cider", "meteor", "rouge_l", *captions.BLEU), (answers[0], document["references"]))


@lru_cache(maxsize=1)  # all figures are of the same comments
def _captions(told: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, float]:
    tokens = captions.tokenised([[text for text, _ in told]], [references for _, references in told])
    return captions.scored(tokens.captions[0], tokens.references).corpus


def _caption_figure(name: str) -> Any:
    def figure(told: Sequence[tuple[str, Sequence[str]]]) -> float:
        return _captions(tuple((text, tuple(references)) for text, references in told))[name]

    figure.__name__ = name
    return figure


cider, meteor, rouge_l, bleu_1, bleu_2, bleu_3, bleu_4 = map(
    _caption_figure, ("cider", "meteor", "rouge_l", *captions.BLEU)
)


@cache
def _remedies() -> dict[str, str]:
    states = [(attribute.name, state) for attribute in taxonomy().attributes for state in attribute.states]
    return {SUGGESTION_FORM.format(remedy=r): f"{name}: {state.name}" for name, state in states for r in state.remedies}


@cache
def _rules() -> Rules:
    return naming_rules(taxonomy())


def suggested(answer: str) -> list[str]:
    """States that an answer wants undone: by calm's own words for them, or by those that name them in a comment."""
    found: list[str] = []
    for line in filter(None, map(str.strip, answer.splitlines())):
        known = _remedies().get(line)
        found += [known] if known else states_named(line, _rules())
    return list(dict.fromkeys(found))


def suggestion_results(document: Document, answers: Sequence[str]) -> dict[str, Any]:
    """(states suggested, states there, group), for every figure."""
    told = (suggested(answers[0]), document["edits"], document["group"])
    return dict.fromkeys(("precision", "recall", "unedited_left_alone", "edited_left_alone"), told)


def _decision(told: Sequence[tuple[list[str], list[str], str]]) -> dict[str, Any]:
    made, edits, groups = zip(*told, strict=True)
    return decisions.figures(made, edits, groups, NO_INTERVALS)


def _value(estimate: dict[str, Any]) -> float:
    return float("nan") if estimate["value"] is None else float(estimate["value"])


def precision(told: Any) -> float:
    """Of the states suggested, those that are there."""
    return _value(_decision(told)["state"]["precision"])


def recall(told: Any) -> float:
    """Of the states that are there, those suggested."""
    return _value(_decision(told)["state"]["recall"])


def unedited_left_alone(told: Any) -> float:
    """Share of the photographs that nothing was done to."""
    return _value(_decision(told)["unedited_left_alone"])


def edited_left_alone(told: Any) -> float:
    """Share of those that something was done to."""
    return _value(_decision(told)["edited_left_alone"])


def personal_results(document: Document, answers: Sequence[str]) -> dict[str, Any]:
    """The row of the answer."""
    row = {name: document[name] for name in ("dataset", "rater_id", "shots", "draw", "item_id", "rating")}
    return dict.fromkeys(("srcc", "mae"), row | {"in_context": number(answers[0])})


def _per_rater(rows: Sequence[Document]) -> dict[str, Any]:
    table = pd.DataFrame(rows).reindex(columns=[*rows[0], *personalised.METHODS.keys() - rows[0].keys()])
    table = table.astype(dict.fromkeys(personalised.METHODS, "float64"))
    raters = len(table[["dataset", "rater_id"]].drop_duplicates())
    found: dict[str, Any] = personalised.measure(personalised.per_rater(table), raters, NO_INTERVALS)["in_context"]
    return found


def rater_srcc(rows: Sequence[Document]) -> float:
    """Mean over raters, as `calm evaluate personalised`, in context."""
    return _value(_per_rater(rows)["srcc"])


def rater_mae(rows: Sequence[Document]) -> float:
    """The same, in points."""
    return _value(_per_rater(rows)["mae"])
