"""Mood between warm and cold light."""

from __future__ import annotations

from functools import partial

from calm.attributes import measures
from calm.attributes.operations import tone
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="temperature",
    level="high",
    unchanged=State(
        "unchanged",
        phrases=(
            "the mood of the light is neutral",
            "the light feels like plain daylight",
            "the mood is plain and true to the place",
            "the light is neither golden nor bluish",
            "the daylight mood is kept",
        ),
        nouns=(
            "the neutral mood",
            "the daylight mood",
        ),
    ),
    states=(
        State(
            "warm",
            edit=partial(tone.tint, towards=(0.6, 0.0, -0.9)),
            strength=(0.2, 0.5),
            harm=0.15,
            phrases=(
                "the mood is {very} warm",
                "golden light makes the scene {very} warm",
                "the light is {very} orange, like a late evening",
                "the picture glows in {very} warm tones",
                "a {very} golden atmosphere fills the scene",
            ),
            nouns=(
                "a warm mood",
                "golden, warm light",
                "an orange evening glow",
            ),
            remedies=(
                "cool the light down",
                "set a lower colour temperature towards blue",
                "shift the white balance from orange to neutral",
            ),
            touches=frozenset(("white_balance",)),
            step="tone",
            measure=measures.warmth,
            direction=1,
        ),
        State(
            "cold",
            edit=partial(tone.tint, towards=(-0.9, -0.15, 0.6)),
            strength=(0.2, 0.5),
            harm=0.25,
            phrases=(
                "the mood is {very} cold",
                "blue light makes the scene {very} cold",
                "the light is {very} bluish, like a winter dawn",
                "the picture is bathed in {very} icy tones",
                "a {very} chilly blue atmosphere fills the scene",
            ),
            nouns=(
                "a cold mood",
                "bluish, cold light",
                "an icy blue atmosphere",
            ),
            remedies=(
                "make the light warmer",
                "set a higher colour temperature away from blue",
                "shift the white balance from blue to neutral",
            ),
            touches=frozenset(("white_balance",)),
            step="tone",
            measure=measures.warmth,
            direction=-1,
        ),
    ),
)
