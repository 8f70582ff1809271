"""The quality gate: are the texts of a state nearer to their own state than to any other, under the text encoder?

A state stands for the mean of its texts' embeddings: the prototype that recognition uses too (`calm.training`). Each
text is compared with the prototypes of all states of its level, its own state's being made without it. Nobody has to
read anything; but what the encoder cannot tell apart, it cannot judge: the states it mixes up are listed by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from calm.writing import WritingError
from calm.writing.checks import Embed

_LISTED = 5


@dataclass(frozen=True)
class Judged:
    """Guidance texts with what the encoder took them for.

    Attributes:
        frame: rows of GUIDANCE.
        nearest: (N,) row of `states` nearest to each text among all states of its level.
        nearest_sibling: the same among the states of its attribute alone.
        own: (N,) row of `states` that each text was written for.
        states: (level, attribute, state) in the order of the table.
    """

    frame: pd.DataFrame
    nearest: np.ndarray
    nearest_sibling: np.ndarray
    own: np.ndarray
    states: list[tuple[str, str, str]]


def judge(frame: pd.DataFrame, embed: Embed) -> Judged:
    """Compare every text with the states of its level.

    Raises:
        WritingError: a state has one text alone, so that nothing is left to compare it with.
    """
    places = list(zip(frame["level"], frame["attribute"], frame["state"], strict=True))
    states = list(dict.fromkeys(places))
    index = {place: number for number, place in enumerate(states)}
    own = np.array([index[place] for place in places])
    counts = np.bincount(own, minlength=len(states))
    if counts.min() < 2:
        raise WritingError("the quality gate needs two texts per state at least: raise attributes.texts.per_state")
    vectors = np.asarray(embed(frame["text"].tolist()), dtype=np.float64)
    sums = np.zeros((len(states), vectors.shape[1]))
    np.add.at(sums, own, vectors)
    similarity = vectors @ _units(sums).T
    similarity[np.arange(len(own)), own] = (vectors * _units(sums[own] - vectors)).sum(1)
    levels, attributes = ([place[part] for place in states] for part in (0, 1))
    return Judged(frame, _nearest(similarity, own, levels), _nearest(similarity, own, attributes), own, states)


def metrics(judged: Judged, threshold: float) -> dict[str, Any]:
    """Shares of texts nearest to their own state, with 95 % intervals and chance, for `gate.json`."""
    levels = [place[0] for place in judged.states]
    attributes = [place[1] for place in judged.states]
    level = np.array(levels)[judged.own]
    right = judged.nearest == judged.own
    accuracy = share(right, _chance(judged.own, levels))
    return {
        "accuracy": accuracy,
        "accuracy_within_attribute": share(judged.nearest_sibling == judged.own, _chance(judged.own, attributes)),
        "levels": {
            name: share(right[level == name], _chance(judged.own[level == name], levels))
            for name in dict.fromkeys(levels)
        },
        "mixed_up": mixed_up(judged),
        "passed": accuracy["value"] >= threshold,
        "providers": {name: int(count) for name, count in judged.frame["provider"].value_counts().sort_index().items()},
        "states": len(judged.states),
        "texts": len(judged.frame),
        "threshold": threshold,
    }


def share(right: np.ndarray, chance: float) -> dict[str, float]:
    """A share with its 95 % interval (Wilson) and what guessing would reach."""
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(0.95, "wilson")
    return {
        "value": float(right.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "chance": chance,
    }


def mixed_up(judged: Judged) -> list[dict[str, Any]]:
    """States of whose texts less than half are nearest to their own state, worst first."""
    found = []
    for number, place in enumerate(judged.states):
        nearest = judged.nearest[judged.own == number]
        accuracy = float((nearest == number).mean())
        if accuracy < 0.5:
            wrong = np.bincount(nearest[nearest != number])
            other = judged.states[int(wrong.argmax())]
            found.append({"state": "/".join(place), "accuracy": accuracy, "mostly_nearest_to": "/".join(other)})
    return sorted(found, key=lambda row: (row["accuracy"], row["state"]))


def confusion(judged: Judged) -> pd.DataFrame:
    """One row for each text: its state and the nearest one, for `dvc plots`."""
    names = np.array(["/".join(place[1:]) for place in judged.states])
    levels = np.array([place[0] for place in judged.states])
    return pd.DataFrame({"level": levels[judged.own], "state": names[judged.own], "nearest": names[judged.nearest]})


def failure(found: dict[str, Any]) -> WritingError:
    """The gate's verdict on texts that were paid for and are not good enough."""
    worst = "; ".join(
        f"{row['state']} ({row['accuracy']:.0%}, mostly nearest to {row['mostly_nearest_to']})"
        for row in found["mixed_up"][:_LISTED]
    )
    return WritingError(
        f"only {found['accuracy']['value']:.1%} of the guidance texts are nearest to their own state; "
        f"attributes.texts.gate.accuracy asks for {found['threshold']:.1%}. Worst: {worst or 'none below half'}. "
        "Say more in the template of these attributes (calm/writing/templates/): only they are asked for again"
    )


def _nearest(similarity: np.ndarray, own: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """The most similar state of the same group."""
    known = np.array(groups)
    found: np.ndarray = np.where(known[own][:, None] == known[None, :], similarity, -np.inf).argmax(1)
    return found


def _chance(own: np.ndarray, groups: Sequence[str]) -> float:
    sizes = np.array([groups.count(group) for group in groups])
    return float((1 / sizes[own]).mean())


def _units(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found
