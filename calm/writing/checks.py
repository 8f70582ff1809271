"""What a written text has to pass: rules, each with the reason that a rejected text is kept under, then the quality
gate.

The gate asks: are the texts of a state nearer to their own state than to any other, under the text encoder? A state
stands for the mean of its texts' embeddings: the prototype that recognition uses too (`calm.training`). Each text is
compared with the prototypes of all states of its level, its own state's being made without it. Nobody has to read
anything; but what the encoder cannot tell apart, it cannot judge: the states it mixes up are listed by name.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from calm.data.store.text import clean
from calm.writing import WritingError
from calm.writing.requests import INSTRUCTION, Topic, by_scope
from calm.writing.settings import TextChecks

Embed = Callable[[Sequence[str]], np.ndarray]  # texts -> unit vectors (N, width)

MOST_BYTES = 300  # of a text that passes, in UTF-8
KEPT_CHARACTERS = 300  # of a rejected text
_REFUSAL = re.compile(
    r"\b(as an? (ai|language model)|i('m| am) (sorry|unable|not able)|i (cannot|can't|can not|won't)|i apologi[sz]e)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[<>{}\[\]`|#*_~\\]|https?:|www\.|^\s*(\d+[.)]|[-•])\s|\b(assistant|user|system)\s*:", re.I)
_ORDERS = re.compile(
    r"\b(ignore|disregard|forget|override)\b.{0,30}\b(instructions?|prompts?|rules|above|previous|prior)\b", re.I
)
_WORD = re.compile(r"[a-z]+")
_ENDING = re.compile(r"(?<=[a-z]{3})(?:ing|edly|ed|er|en|es|ly|s)$")
_COMMON = 6  # attributes that use a word before it says nothing of any
_LISTED = 5


class Rules:
    """The rules, with what they have to know of all topics.

    A text that passes is about its topic as far as words can tell; whether it is nearer to another state's words is for
    the text encoder (`misplaced`).
    """

    def __init__(self, topics: Sequence[Topic], checks: TextChecks) -> None:
        self.topics, self.checks = list(topics), checks

    def broken(self, topic: Topic, text: str) -> str | None:
        """The first rule that a text breaks, or None."""
        tidy = clean(text)
        if not any(character.isalpha() for character in tidy):
            return "empty"
        if len(text.encode(errors="replace")) > MOST_BYTES or len(tidy.split()) > self.checks.max_words:
            return "too long"
        if _REFUSAL.search(tidy):
            return "refusal"
        if _ORDERS.search(tidy):
            return "gives orders to the reader"
        if _MARKUP.search(tidy) or _control(text):
            return "markup or control characters"
        if topic.scope == INSTRUCTION:
            return None
        return self._other_attribute(topic, tidy) or self._wrong_direction(topic, tidy)

    def _other_attribute(self, topic: Topic, text: str) -> str | None:
        words = f" {' '.join(_WORD.findall(text.lower()))} "
        for name, place in self._foreign[topic.family].items():
            if f" {name} " in words:
                return f"speaks of {place}"
        return None

    def _wrong_direction(self, topic: Topic, text: str) -> str | None:
        """More words that only another state of the attribute is described with than words of its own."""
        found = words(text)
        own = len(found & self._telling[topic.place])
        for other in self._siblings(topic):
            if len(found & self._telling[other.place]) > own:
                return f"says {other.name}"
        return None

    def _siblings(self, topic: Topic) -> list[Topic]:
        return [other for other in self.topics if other.family == topic.family and other.name != topic.name]

    @cached_property
    def _telling(self) -> dict[tuple[str, str, str], set[str]]:
        """Words that describe a state and none of its siblings, and put none of them right."""
        families: Counter[str] = Counter()
        for family in dict.fromkeys(topic.family for topic in self.topics):
            families.update(set().union(*(_said(topic) for topic in self.topics if topic.family == family)))
        found = {}
        for topic in self.topics:
            siblings = self._siblings(topic)
            described = {_stem(word) for other in siblings for word in _said(other)}
            remedies = set().union(*(words(" ".join(other.remedies)) for other in siblings), set())
            found[topic.place] = {
                word
                for word in _said(topic) - remedies - ENGLISH_STOP_WORDS
                if _stem(word) not in described and families[word] < _COMMON
            }
        return found

    @cached_property
    def _foreign(self) -> dict[str, dict[str, str]]:
        """For each attribute, names of other attributes and their states that its own words do not contain."""
        names: dict[str, tuple[str, str]] = {}
        for topic in self.topics:
            if topic.scope == INSTRUCTION:
                continue
            for name in (topic.family, topic.name):
                if name != "unchanged":
                    names.setdefault(name.replace("_", " "), (topic.family, name))
        found = {}
        for family in dict.fromkeys(topic.family for topic in self.topics):
            own = [
                w for t in self.topics if t.family == family for w in (*t.words, *t.remedies, t.name.replace("_", " "))
            ]
            vocabulary = f" {' '.join(_WORD.findall(' '.join(own).lower()))} "
            found[family] = {
                name: f"{of}, {which}" if of != which else of
                for name, (of, which) in sorted(names.items(), key=lambda item: -len(item[0]))
                if of != family and f" {name} " not in vocabulary
            }
        return found


class Meaning:
    """What the text encoder knows of topics: their own words, and which text lies nearer to whose."""

    def __init__(self, topics: Sequence[Topic], embed: Embed, checks: TextChecks) -> None:
        self.embed, self.checks = embed, checks
        self._rivals = by_scope(topics)
        words = list(dict.fromkeys(word for topic in topics for word in (*topic.words, *topic.remedies)))
        vectors = dict(zip(words, embed(words), strict=True)) if words else {}
        self._anchors = {
            topic.place: _unit(np.mean([vectors[word] for word in (*topic.words, *topic.remedies)], axis=0))
            for topic in topics
        }

    def misplaced(self, topic: Topic, vector: np.ndarray) -> str | None:
        """The topic of the same scope whose words are nearer than the own ones by more than the margin."""
        own = float(vector @ self._anchors[topic.place])
        rivals = [other for other in self._rivals[topic.scope] if other.place != topic.place]
        if not rivals:
            return None
        nearness = [float(vector @ self._anchors[other.place]) for other in rivals]
        best = int(np.argmax(nearness))
        return f"nearer to {rivals[best].path}" if nearness[best] - own > self.checks.margin else None

    def duplicate(self, vector: np.ndarray, taken: Sequence[np.ndarray]) -> bool:
        """Whether the meaning is that of a text which was taken before."""
        return bool(taken) and float(np.max(np.stack(taken) @ vector)) >= self.checks.duplicate


def words(text: str) -> set[str]:
    """The different words of a text."""
    return set(_WORD.findall(text.lower()))


def bare(text: str) -> str:
    """A text without case and punctuation, to tell equal ones."""
    return " ".join(_WORD.findall(text.lower()))


def shortened(text: str) -> str:
    """A rejected text as it is kept."""
    return clean(text, KEPT_CHARACTERS)


def _said(topic: Topic) -> set[str]:
    """Words of a state's name and description."""
    name = "" if topic.name == "unchanged" else topic.name.replace("_", " ")
    return words(" ".join((name, *topic.words)))


def _stem(word: str) -> str:
    """A word without its ending, so that one state's "brighter" is not held to be foreign to another's "bright"."""
    return _ENDING.sub("", word)


def _control(text: str) -> bool:
    """Whether a text has control, format, private or unassigned characters; trailing blanks do not count."""
    return any(unicodedata.category(character)[0] == "C" for character in text.strip())


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def most_common(reasons: Iterable[str], count: int = 3) -> str:
    """The reasons that come most often, with their numbers."""
    return ", ".join(f"{number}x {reason}" for reason, number in Counter(reasons).most_common(count))


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
