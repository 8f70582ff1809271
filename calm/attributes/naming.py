"""Exact rules for what a text names: a sentence that holds all content words of a phrase of the taxonomy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calm.attributes.taxonomy import Taxonomy

Rules = dict[str, list[frozenset[str]]]
SOUND = ": unchanged"  # end of the labels of what is as it should be
# Words that carry no state: a rule made of these alone would fire on any comment.
FILLERS = frozenset(
    """
    a an and are as at be been by far for from has have in into is it its like looks of on or seems shot so that the
    there this to too very was were with image images photo photos photograph picture frame scene slightly rather quite
    little bit much clearly somewhat
    """.split()  # noqa: SIM905 (a list of 60 quoted words reads worse)
)


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
    return frozenset(re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())) - FILLERS
