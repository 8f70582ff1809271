"""A seeded grammar that puts the taxonomy's words together: guidance texts, comments, suggestions. All synthetic.

The words themselves are in the catalogue, beside the edits they describe; here are only the patterns around them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeVar

import numpy as np

from calm.attributes.edits import Edit, resolve
from calm.attributes.taxonomy import Attribute, State, Taxonomy, taxonomy

Choice = TypeVar("Choice")

GRAMMAR = "grammar-4"  # raised whenever the same seed would give other texts

MAX_WORDS = 35  # of a comment
MIN_WORDS = 12
MAX_SENTENCES = 3
MAX_NAMED = 3  # edits that one comment speaks of

# Words of degree for severities up to a third, up to two thirds, and above.
_VERY = (("slightly", "somewhat"), ("clearly", "noticeably"), ("very", "extremely"))
_TOO = (("a little too", "slightly too"), ("clearly too", "rather too"), ("far too", "much too"))

_FLAW_PATTERNS = (
    "{Noun}.",
    "{title}: {noun}.",
    "{Clause}.",
    "As it stands, {clause}.",
    "Looking at it closely, {clause}.",
    "The first thing to catch the eye: {noun}.",
    "I think {clause}.",
    "To me it seems that {clause}.",
    "{Clause}; {remedy}.",
    "{Clause}. I would {remedy}.",
    "Because {clause}, I would {remedy}.",
    "I notice {noun} here: {remedy}.",
)
_PRAISE_PATTERNS = (
    "{Noun}.",
    "{title}: {noun}.",
    "{Clause}.",
    "I like {noun}.",
    "I think {clause}.",
    "Nothing to correct here: {clause}.",
    "Keep this as it is, since {clause}.",
    "A strength of this photo is {noun}.",
    "To me it seems that {clause}.",
    "{Clause}; leave it as it is.",
)
_SUGGESTIONS = (
    "{Remedy}.",
    "I would {remedy}.",
    "You could {remedy}.",
    "It would help to {remedy}.",
    "Try this: {remedy}.",
)
_OPENERS = ("{Clause}", "Here {clause}", "At first glance {clause}", "For me, {clause}")
# The first noun is also what the model is told (calm.model.words): it can take that over; a clause it has to know.
_NOTICED = ("{Noun} catches the eye first", "I notice {noun}", "What I see first is {noun}", "It suffers from {noun}")
_STOP = re.compile(r"\.(?= |$)")
_ARTICLE = re.compile(r"\b([Aa])(?= [aeio])")  # every word of the catalogue that begins so begins with a vowel's sound
_KINDS = ("photo", "picture", "shot", "photograph")
_VERDICTS = ("A lovely {kind}", "A well made {kind}", "This {kind} works well", "A fine {kind}")
_CLOSINGS = ("I would leave it as it is.", "Nothing needs to be changed.", "Well done.", "A pleasure to look at.")


def all_guidance(attribute: str, state: str, known: Taxonomy | None = None) -> list[str]:
    """Every text that `guidance` can give for a state, each once, in a fixed order."""
    found = (known or taxonomy()).attribute(attribute)
    return list(dict.fromkeys(_every_guidance(found, found.state(state))))


def comment(edits: Sequence[Edit], rng: np.random.Generator, known: Taxonomy | None = None) -> str:
    """A comment of one to three sentences on a photograph with these edits: flaws, worst first, or praise.

    What the photograph shows is not named: whoever learns from the comments would name it where it is not.
    """
    known = known or taxonomy()
    ranked = sorted(edits, key=lambda edit: (-edit.severity * resolve(edit, known)[1].harm, edit.attribute))[:MAX_NAMED]
    touched = frozenset().union(*(resolve(edit, known)[1].touches for edit in edits))
    sound = [one for one in known.attributes if not one.touches & touched]
    if not ranked:
        return _praise(sound, rng)
    text = _flaws(ranked, rng, known)
    extras = [_apply(_pick(_SUGGESTIONS, rng), remedy=_pick(resolve(ranked[0], known)[1].remedies, rng))]
    if sound:
        extras.append(f"On the other hand, {_pick(_pick(sound, rng).unchanged.phrases, rng)}.")
    return _within(text, extras)


def degree(phrase: str, severity: float | None, rng: np.random.Generator | None = None) -> str:
    """Fill a phrase's word of degree: none without a severity, else one that fits it (the first without `rng`)."""
    very, too = "", "too"
    if severity is not None:
        band = min(2, int(severity * 3))
        very, too = (_pick(words[band], rng) if rng else words[band][0] for words in (_VERY, _TOO))
    return _ARTICLE.sub(r"\1n", " ".join(phrase.format(very=very, too=too).split()))


def _every_guidance(attribute: Attribute, state: State) -> Iterator[str]:
    """All texts of a state: each pattern with every filling of the slots that it has."""
    degrees = (None, 0.0, 0.5, 1.0) if state.edit else (None,)
    clauses = list(dict.fromkeys(degree(phrase, severity) for phrase in state.phrases for severity in degrees))
    fillings = {"clause": clauses, "noun": state.nouns, "remedy": state.remedies, "title": (attribute.title,)}
    for pattern in _FLAW_PATTERNS if state.edit else _PRAISE_PATTERNS:
        slots = [slot for slot in fillings if "{" + slot + "}" in pattern.lower()]
        for values in product(*(fillings[slot] for slot in slots)):
            yield _apply(pattern, **dict(zip(slots, values, strict=True)))


def _flaws(ranked: Sequence[Edit], rng: np.random.Generator, known: Taxonomy) -> str:
    """One to three sentences that name the edits, in their order; the more there are, the shorter each part."""
    states = [resolve(edit, known)[1] for edit in ranked]
    clauses = [
        degree(_pick(_shortest(state.phrases, 16 - 3 * len(ranked)), rng), edit.severity, rng)
        for state, edit in zip(states[:2], ranked, strict=False)
    ]
    patterns = _NOTICED if rng.integers(2) else _OPENERS
    opening = _apply(_pick(patterns, rng), clause=clauses[0], noun=states[0].nouns[0])
    if len(clauses) == 1:
        return f"{opening}."
    second = f"I see {states[1].nouns[0]}" if rng.integers(2) else clauses[1]
    joined = "{one}, and {two}." if rng.integers(2) else "{one}. Besides, {two}."
    sentences = [joined.format(one=opening, two=second)]
    sentences += [f"I also notice {state.nouns[0]}." for state in states[2:]]
    return " ".join(sentences)


def _shortest(phrases: Sequence[str], words: int) -> Sequence[str]:
    """Phrases of at most so many words, or the shortest one."""
    return [phrase for phrase in phrases if len(phrase.split()) <= words] or [min(phrases, key=len)]


def _praise(sound: Sequence[Attribute], rng: np.random.Generator) -> str:
    """A verdict with what is good about two or three attributes."""
    chosen = [sound[int(index)] for index in rng.permutation(len(sound))[: 2 + int(rng.integers(2))]]
    reasons = [_pick(attribute.unchanged.phrases, rng) for attribute in chosen]
    verdict = _apply(_pick(_VERDICTS, rng), kind=_pick(_KINDS, rng))
    listed = f"{', '.join(reasons[:-1])} and {reasons[-1]}"
    return _within(f"{verdict}: {listed}.", [_pick(_CLOSINGS, rng)])


def _within(text: str, extras: Sequence[str]) -> str:
    """Add extras until a comment is long enough: what else could be said belongs to other photographs as well."""
    for extra in extras:
        room = len(_STOP.findall(text)) < MAX_SENTENCES and len(f"{text} {extra}".split()) <= MAX_WORDS
        if room and len(text.split()) < MIN_WORDS:
            text = f"{text} {extra}"
    return text


def _apply(pattern: str, **slots: str) -> str:
    """Fill a pattern; a slot written with a capital takes its text with one."""
    capitals = {name.capitalize(): text[:1].upper() + text[1:] for name, text in slots.items()}
    text = pattern.format(**slots, **capitals)
    return text[:1].upper() + text[1:]


def _pick(choices: Sequence[Choice], rng: np.random.Generator) -> Choice:
    return choices[int(rng.integers(len(choices)))]
