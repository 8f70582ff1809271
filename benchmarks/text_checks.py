"""What the checks of written texts let through and what they stop: `python -m benchmarks.text_checks`.

The grammar's texts, all of them, are held against the rules three times: as texts of their own state (nothing should be
stopped), of another state of the attribute, and of a state of another attribute of the level (all should be). The
encoder's check reads a seeded sample of them. The texts are synthetic.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from calm.attributes.grammar import all_guidance
from calm.attributes.taxonomy import taxonomy
from calm.params import load_params
from calm.seeds import stream
from calm.writing.checks import Meaning, Rules
from calm.writing.requests import Topic, state_topics
from calm.writing.settings import TextChecks
from calm.writing.stage import text_encoder

SAMPLE = 12  # texts of each state that the encoder reads
KINDS = ("own state", "other state of the attribute", "other attribute of the level")


def kind_of(topic: Topic, other: Topic) -> str | None:
    """What a text of `topic` would be as a text of `other`; None on another level."""
    if topic.scope != other.scope:
        return None
    return KINDS[0] if topic == other else KINDS[1] if topic.family == other.family else KINDS[2]


def shares(outcomes: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """Share that was stopped, of each kind."""
    found: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for kind, stopped in outcomes:
        found[kind].append(stopped)
    return {kind: float(np.mean(stopped)) for kind, stopped in found.items()}


def main() -> None:
    """Print both tables."""
    topics, checks = state_topics(taxonomy(), 16), TextChecks()
    rules = Rules(topics, checks)
    pairs = [(one, other, kind) for one in topics for other in topics if (kind := kind_of(one, other))]
    texts = {topic.place: all_guidance(topic.family, topic.name) for topic in topics}
    by_rules = shares(
        (kind, rules.broken(other, text) is not None) for one, other, kind in pairs for text in texts[one.place]
    )
    embed = text_encoder(load_params().parts.text)
    meaning = Meaning(topics, embed, checks)
    drawn = {}
    for topic in topics:
        order = stream(1, "text-checks", *topic.place).permutation(len(texts[topic.place]))[:SAMPLE]
        drawn[topic.place] = embed([texts[topic.place][index] for index in order])
    by_encoder = shares(
        (kind, meaning.misplaced(other, vector) is not None)
        for one, other, kind in pairs
        for vector in drawn[one.place]
    )
    print(f"{sum(map(len, texts.values())):,} texts, {len(topics)} states; margin {checks.margin:g}\n")
    print("| submitted as | stopped by the rules | stopped by the encoder |")
    print("| --- | --- | --- |")
    for kind in KINDS:
        print(f"| {kind} | {by_rules[kind]:.2%} | {by_encoder[kind]:.1%} |")


if __name__ == "__main__":
    main()
