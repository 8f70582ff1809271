"""Texts from the offline grammar: seeded, synthetic, free."""

from __future__ import annotations

from calm.attributes.grammar import GRAMMAR, all_guidance
from calm.attributes.taxonomy import Taxonomy
from calm.io import sha256_text
from calm.seeds import stream
from calm.writing.api.openai import Written
from calm.writing.topics import INSTRUCTION, Topic, hand_written

PROVIDER = "grammar"


def write(topic: Topic, seed: int, known: Taxonomy) -> list[Written]:
    """`topic.wanted` of all texts that the grammar has, by seed.

    Raises:
        ValueError: it has fewer.
    """
    _, family, name = topic.place
    asking = topic.scope == INSTRUCTION
    choices = hand_written(name) if asking else all_guidance(family, name, known)
    if len(choices) < topic.wanted:
        key, place = (
            ("instructions.paraphrases", "calm/writing/paraphrases.yaml")
            if asking
            else ("attributes.texts.per_state", "the attribute's file")
        )
        raise ValueError(
            f"the grammar has only {len(choices)} texts for '{name}' of '{family}': lower {key} so that at most as "
            f"many are wanted (now {topic.wanted}), or add words to {place}"
        )
    order = stream(seed, "guidance", family, name).permutation(len(choices))[: topic.wanted]
    asked = sha256_text("\n".join((GRAMMAR, *topic.place)))
    return [Written(choices[index], "", PROVIDER, GRAMMAR, asked) for index in order]
