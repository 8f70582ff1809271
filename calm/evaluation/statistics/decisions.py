"""Which suggestions to make, and whether to make any: precision, recall, and leaving good photographs alone.

A ranking says what is most likely wrong, not whether anything is. So a suggestion is made where its strength passes a
threshold, which is chosen on the other half of the photographs' groups: nobody's own answer decides for him.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calm.evaluation.statistics.metrics import Bootstrap, Estimate, mean

Labels = Sequence[Sequence[str]]
CUTS = 201  # thresholds that are tried, at most
KINDS = ("attribute", "state")  # named by its attribute; by attribute and state, which is the direction to undo


def key(label: str, kind: str) -> str:
    """'tilt: clockwise' -> 'tilt' or itself."""
    return label.split(": ")[0] if kind == "attribute" else label


def cross_fitted(
    ranked: Labels,
    strengths: Sequence[Sequence[float]],
    edits: Labels,
    groups: Sequence[Hashable],
    rng: np.random.Generator,
) -> list[list[str]]:
    """Of each photograph's ranked labels, those over the threshold that serves the other half of the groups best.

    Args:
        ranked: labels of each photograph, best first; `strengths` of the same shape.
        edits: what was really done; empty for an unedited photograph.
        rng: draws the halves.
    """
    names = list(dict.fromkeys(groups))
    first = {names[index] for index in rng.permutation(len(names))[: len(names) // 2]}
    half = np.array([group in first for group in groups])
    made: list[list[str]] = [[] for _ in ranked]
    for side in (True, False):
        others = np.flatnonzero(half != side).tolist()
        least = _threshold([ranked[i] for i in others], [strengths[i] for i in others], [edits[i] for i in others])
        for i in np.flatnonzero(half == side).tolist():
            made[i] = [label for label, value in zip(ranked[i], strengths[i], strict=True) if value > least]
    return made


def _threshold(ranked: Labels, strengths: Sequence[Sequence[float]], edits: Labels) -> float:
    """Where the share of unedited photographs left alone plus that of edited ones with a hit is largest.

    Without photographs, or with one kind alone, every suggestion is made.
    """
    edited = np.array([bool(one) for one in edits])
    if not len(edited) or edited.all() or not edited.any():
        return -np.inf
    values = [value for one in strengths for value in one]
    cuts = np.unique(np.quantile(values, np.linspace(0, 1, CUTS))) if values else np.zeros(0)
    best, least = -np.inf, -np.inf
    for cut in (-np.inf, *cuts.tolist()):
        pairs = zip(ranked, strengths, strict=True)
        made = [[label for label, value in zip(*one, strict=True) if value > cut] for one in pairs]
        left = np.array([not one for one in made])
        hit = np.array([bool(set(one) & set(true)) for one, true in zip(made, edits, strict=True)])
        if (gain := left[~edited].mean() + hit[edited].mean()) > best:
            best, least = gain, cut
    return least


def figures(made: Labels, edits: Labels, groups: Sequence[Hashable], bootstrap: Bootstrap) -> dict[str, Any]:
    """Precision, recall and F1 pooled over photographs, by attribute and by state; photographs left alone."""
    edited = np.array([bool(one) for one in edits])
    result: dict[str, Any] = {}
    for kind in KINDS:
        wanted = [{key(label, kind) for label in one} for one in edits]
        given = [{key(label, kind) for label in one} for one in made]
        right = np.array([len(a & b) for a, b in zip(wanted, given, strict=True)], dtype=float)
        counts = np.stack([right, [len(one) for one in given], [len(one) for one in wanted]], axis=1)
        result[kind] = _pooled(counts, bootstrap.weights(groups), bootstrap)
    left = np.array([not one for one in made], dtype=float)
    for name, rows in (("unedited_left_alone", ~edited), ("edited_left_alone", edited)):
        chosen = [group for group, row in zip(groups, rows, strict=True) if row]
        result[name] = mean(left[rows], chosen, bootstrap).to_json()
    return result


def _pooled(counts: NDArray[np.float64], weights: NDArray[np.float64], bootstrap: Bootstrap) -> dict[str, Any]:
    """Of counts (N, 3) = right, suggested, there: ratios of their sums, with intervals over groups."""

    def ratios(right: Any, made: Any, there: Any) -> list[Any]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return [np.divide(right, made), np.divide(right, there), np.divide(2 * right, made + there)]

    values, draws = ratios(*counts.sum(axis=0)), ratios(*(weights @ counts).T)
    reasons = ("nothing was suggested", "no photograph is edited", "nothing was suggested and no photograph is edited")
    sizes = (counts[:, 1].sum(), counts[:, 2].sum(), len(counts))
    found = {}
    for name, value, drawn, reason, n in zip(("precision", "recall", "f1"), values, draws, reasons, sizes, strict=True):
        if np.isnan(value):
            found[name] = Estimate(None, n=int(n), reason=reason).to_json()
        else:
            found[name] = Estimate(float(value), *bootstrap.interval(drawn), int(n)).to_json()
    return found
