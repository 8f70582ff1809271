"""A seeded grammar that puts the taxonomy's words together, all synthetic; and rules for what a text names of them.

The words themselves are in the catalogue, beside the edits they describe, the patterns around them in `grammar.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import product
from typing import Literal, TypeVar, get_args

import numpy as np
from ruamel.yaml import YAML

from calm.attributes.edits import Edit, resolve
from calm.attributes.taxonomy import Attribute, State, Taxonomy, taxonomy

Choice = TypeVar("Choice")
Rules = dict[str, list[frozenset[str]]]
Standing = Literal["low", "middle", "high"]  # of a photograph among those that people scored
STANDINGS: tuple[Standing, ...] = get_args(Standing)
BOUNDS = 0.25, 0.75  # shares of the photographs between which one is neither weak nor fine

GRAMMAR = "grammar-5"  # raised whenever the same seed would give other texts

MAX_WORDS = 35  # of a comment
MIN_WORDS = 12
MAX_SENTENCES = 3
MAX_NAMED = 3  # edits that one comment speaks of

_WORDS = YAML(typ="safe").load(resources.files("calm.attributes").joinpath("grammar.yaml").read_text(encoding="utf-8"))
_FILLERS = frozenset(_WORDS["fillers"].split())
_STOP = re.compile(r"\.(?= |$)")
_ARTICLE = re.compile(r"\b([Aa])(?= [aeio])")  # every word of the catalogue that begins so begins with a vowel's sound
SOUND = ": unchanged"  # end of the labels of what is as it should be


def all_guidance(attribute: str, state: str, known: Taxonomy | None = None) -> list[str]:
    """Every text that `guidance` can give for a state, each once, in a fixed order."""
    found = (known or taxonomy()).attribute(attribute)
    return list(dict.fromkeys(_every_guidance(found, found.state(state))))


def comment(
    edits: Sequence[Edit], rng: np.random.Generator, known: Taxonomy | None = None, standing: Standing = "high"
) -> str:
    """A comment of one to three sentences on a photograph with these edits: flaws, worst first, or a verdict.

    What the photograph shows is not named: whoever learns from the comments would name it where it is not.

    Args:
        standing: what the verdict says of a photograph without edits.
    """
    known = known or taxonomy()
    ranked = sorted(edits, key=lambda edit: (-edit.severity * resolve(edit, known)[1].harm, edit.attribute))[:MAX_NAMED]
    touched = frozenset().union(*(resolve(edit, known)[1].touches for edit in edits))
    sound = [one for one in known.attributes if one.praised and not one.touches & touched]
    if not ranked:
        return _verdict(sound, standing, rng)
    text = _flaws(ranked, rng, known)
    extras = [_apply(_pick(_WORDS["suggestions"], rng), remedy=_pick(resolve(ranked[0], known)[1].remedies, rng))]
    if sound:
        extras.append(f"On the other hand, {_pick(_pick(sound, rng).unchanged.phrases, rng)}.")
    return _within(text, extras)


def degree(phrase: str, severity: float | None, rng: np.random.Generator | None = None) -> str:
    """Fill a phrase's word of degree: none without a severity, else one that fits it (the first without `rng`)."""
    very, too = "", "too"
    if severity is not None:
        band = min(2, int(severity * 3))
        very, too = (_pick(words[band], rng) if rng else words[band][0] for words in (_WORDS["very"], _WORDS["too"]))
    return _ARTICLE.sub(r"\1n", " ".join(phrase.format(very=very, too=too).split()))


def _every_guidance(attribute: Attribute, state: State) -> Iterator[str]:
    """All texts of a state: each pattern with every filling of the slots that it has."""
    degrees = (None, 0.0, 0.5, 1.0) if state.edit else (None,)
    clauses = list(dict.fromkeys(degree(phrase, severity) for phrase in state.phrases for severity in degrees))
    fillings = {"clause": clauses, "noun": state.nouns, "remedy": state.remedies, "title": (attribute.title,)}
    for pattern in _WORDS["flaws" if state.edit else "praise"]:
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
    patterns = _WORDS["noticed" if rng.integers(2) else "openers"]
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


def _verdict(sound: Sequence[Attribute], standing: Standing, rng: np.random.Generator) -> str:
    """How good the photograph is, with what is in order about two or three attributes."""
    chosen = [sound[int(index)] for index in rng.permutation(len(sound))[: 2 + int(rng.integers(2))]]
    reasons = [_pick(attribute.unchanged.phrases, rng) for attribute in chosen]
    listed = f"{', '.join(reasons[:-1])} and {reasons[-1]}"
    verdict = _apply(_pick(_WORDS["verdicts"][standing], rng), kind=_pick(_WORDS["kinds"], rng), reasons=listed)
    return _within(f"{verdict}.", [_pick(_WORDS["closings"][standing], rng)])


def standing_at(place: float, low: float = BOUNDS[0], high: float = BOUNDS[1]) -> Standing:
    """What to call a photograph by the share of others that score lower; or by its score, with the scores at BOUNDS."""
    return "low" if place < low else "high" if place > high else "middle"


def openings(standing: Standing) -> list[str]:
    """How comments with this verdict begin, up to the word that tells: "A weak", "This photo works"."""
    begun = []
    for pattern in _WORDS["verdicts"][standing]:
        before, after = pattern.split("{kind}")
        if len(before.split()) > 1:
            begun.append(before.strip())
        else:
            begun += [f"{before}{kind} {after.split()[0]}" for kind in _WORDS["kinds"]]
    return begun


def leads(slot: Literal["clause", "noun", "remedy"]) -> list[str]:
    """How sentences that tell a flaw, name it, or undo it, begin before its words: "For me,", "It suffers from"."""
    patterns = _WORDS[{"clause": "openers", "noun": "noticed", "remedy": "suggestions"}[slot]]
    begun = [pattern.split("{" + slot + "}")[0].strip() for pattern in patterns if "{" + slot + "}" in pattern]
    return [lead for lead in begun if lead]


def clauses(state: State) -> list[str]:
    """A state's phrases with every word of degree, and without."""
    very, too = (["", *(word for band in _WORDS[kind] for word in band)] for kind in ("very", "too"))
    degrees = [(very[index], too[index] or "too") for index in range(len(very))]
    filled = (" ".join(phrase.format(very=v, too=t).split()) for phrase in state.phrases for v, t in degrees)
    return list(dict.fromkeys(_ARTICLE.sub(r"\1n", clause) for clause in filled))


def standing_of(text: str) -> Standing | None:
    """The verdict that a comment of the grammar begins with; None where it is another text, or names flaws."""
    return next((one for one in STANDINGS if text.startswith(tuple(openings(one)))), None)


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


def naming_rules(known: Taxonomy) -> Rules:
    """For each 'attribute: state', unchanged ones too, the sets of words of which one has to occur in a sentence."""
    rules: Rules = {}
    for attribute in known.attributes:
        for state in attribute.all_states:
            texts = (*state.phrases, *state.nouns, *state.remedies)
            words = {content_words(re.sub(r"\{\w+\}", " ", text)) for text in texts}
            rules[f"{attribute.name}: {state.name}"] = sorted((w for w in words if w), key=lambda w: sorted(w))
    return rules


def states_named(comment: str, rules: Rules) -> list[str]:
    """The labels 'attribute: state' that a comment names, but unchanged ones: what it finds changed."""
    return [label for label in _labels_named(comment, rules) if not label.endswith(SOUND)]


def sound_named(comment: str, rules: Rules) -> list[str]:
    """The labels 'attribute: unchanged' that a comment names: what it praises."""
    return [label for label in _labels_named(comment, rules) if label.endswith(SOUND)]


def _labels_named(comment: str, rules: Rules) -> list[str]:
    """Labels of which a sentence holds all content words of a phrase, if these are not part of another label's phrase.

    "Light and dark are well separated" praises contrast; it does not call the photograph dark.
    """
    named: set[str] = set()
    for sentence in {content_words(part) for part in re.split(r"[.!?;\n]+", comment)}:
        found = {label: [words for words in sets if words <= sentence] for label, sets in rules.items()}
        longest = [words for sets in found.values() for words in sets]
        named |= {
            label for label, sets in found.items() if any(not any(words < other for other in longest) for words in sets)
        }
    return sorted(named)


def content_words(text: str) -> frozenset[str]:
    """Words of a text, in lower case, without those that carry no state."""
    return frozenset(re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())) - _FILLERS
