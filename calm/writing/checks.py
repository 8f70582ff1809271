"""The rules that a written text has to pass, each with the reason that a rejected one is kept under."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from calm.data.store.text import clean
from calm.writing.settings import TextChecks
from calm.writing.topics import INSTRUCTION, Topic, by_scope

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
