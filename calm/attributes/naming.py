"""Exact rules for what a text names: a sentence that holds all content words of a phrase of the taxonomy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calm.attributes.taxonomy import Taxonomy

Rules = dict[str, list[frozenset[str]]]
# Words that carry no state: a rule made of these alone would fire on any comment.
FILLERS = frozenset(
    """
    a an and are as at be been by far for from has have in into is it its like looks of on or seems shot so that the
    there this to too very was were with image images photo photos photograph picture frame scene slightly rather quite
    little bit much clearly somewhat
    """.split()  # noqa: SIM905 (a list of 60 quoted words reads worse)
)


def naming_rules(known: Taxonomy) -> Rules:
    """For each 'attribute: state', the sets of words of which one has to occur in a sentence that names it."""
    rules: Rules = {}
    for attribute in known.attributes:
        for state in attribute.states:
            texts = (*state.phrases, *state.nouns, *state.remedies)
            words = {content_words(re.sub(r"\{\w+\}", " ", text)) for text in texts}
            rules[f"{attribute.name}: {state.name}"] = sorted((w for w in words if w), key=lambda w: sorted(w))
    return rules


def states_named(comment: str, rules: Rules) -> set[str]:
    """The 'attribute: state' labels that a comment names: a sentence holds all content words of a phrase."""
    sentences = [content_words(sentence) for sentence in re.split(r"[.!?;\n]+", comment)]
    return {label for label, sets in rules.items() if any(w <= sentence for w in sets for sentence in sentences)}


def content_words(text: str) -> frozenset[str]:
    """Words of a text, in lower case, without those that carry no state."""
    return frozenset(re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())) - FILLERS
