"""Which suggestions to make, and whether to make any: precision, recall, and leaving good photographs alone.

A ranking says what is most likely wrong, not whether anything is. So a suggestion is made where its strength passes a
threshold, which is chosen on the other half of the photographs' groups: nobody's own answer decides for him.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from calm.evaluation.statistics.metrics import Bootstrap, mean, ratio

Labels = Sequence[Sequence[str]]
CUTS = 201  # thresholds that are tried, at most
KINDS = ("attribute", "state")  # named by its attribute; by attribute and state, which is the direction to undo


def key(label: str, kind: str) -> str:
    """'tilt: clockwise' -> 'tilt' or itself."""
    return label.split(": ")[0] if kind == "attribute" else label


def keys(labels: Iterable[str], kind: str) -> set[str]:
    """`key` of every label."""
    return {key(label, kind) for label in labels}


def hits(edits: Labels, told: Labels, kind: str) -> list[float]:
    """1 for each photograph of which a real edit is told, else 0."""
    return [float(bool(keys(real, kind) & keys(labels, kind))) for real, labels in zip(edits, told, strict=True)]


def elsewhere(groups: Sequence[Hashable], rng: np.random.Generator) -> list[int]:
    """A seeded permutation that gives each row the index of a row of another group, wherever the groups allow it.

    Raises:
        ValueError: all rows are of one group, so that there is no other photograph.
    """
    if len(set(groups)) < 2:
        raise ValueError("all photographs are of one group: comments cannot be shuffled between photographs")
    order = list(map(int, rng.permutation(len(groups))))
    place = {group: number for number, group in enumerate(dict.fromkeys(groups[index] for index in order))}
    order.sort(key=lambda index: place[groups[index]])
    largest = max(Counter(groups).values())
    shifted = [0] * len(groups)  # rows lie group by group: a shift by the largest group leaves every group
    for position, index in enumerate(order):
        shifted[index] = order[(position + largest) % len(order)]
    return shifted


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
        there, told = ([keys(labels, kind) for labels in every] for every in (edits, made))
        right = np.array([len(a & b) for a, b in zip(there, told, strict=True)], dtype=float)
        real, given = (np.array([len(labels) for labels in every], dtype=float) for every in (there, told))
        f1 = ratio(2 * right, given + real, groups, bootstrap, "nothing was named and no photograph is edited")
        result[kind] = {
            "precision": ratio(right, given, groups, bootstrap, "nothing was named").to_json(),
            "recall": ratio(right, real, groups, bootstrap, "no photograph is edited").to_json(),
            "f1": replace(f1, n=len(made)).to_json(),
        }
    left = np.array([not one for one in made], dtype=float)
    for name, rows in (("unedited_left_alone", ~edited), ("edited_left_alone", edited)):
        chosen = [group for group, row in zip(groups, rows, strict=True) if row]
        result[name] = mean(left[rows], chosen, bootstrap).to_json()
    return result
