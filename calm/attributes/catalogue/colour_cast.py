"""A tint between green and magenta over the whole picture."""

from __future__ import annotations

from functools import partial

from calm.attributes import measures
from calm.attributes.operations import tone
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="colour_cast",
    level="low",
    unchanged=State(
        "unchanged",
        phrases=(
            "the white balance is neutral",
            "whites look truly white",
            "there is no tint over the picture",
            "greys are clean and neutral",
            "the colour balance is accurate",
        ),
        nouns=(
            "the neutral white balance",
            "the clean whites",
            "the accurate colour balance",
        ),
    ),
    states=(
        State(
            "green",
            edit=partial(tone.tint, towards=(-0.6, 0.5, -0.6)),
            strength=(0.2, 0.5),
            harm=0.6,
            phrases=(
                "the picture has a {very} green cast",
                "a {very} green tint lies over everything",
                "the whites look {too} green",
                "neutral surfaces turn {very} green",
                "the colour balance is shifted {too} strongly towards green",
            ),
            nouns=(
                "a green colour cast",
                "a green tint",
                "a sickly green shift of the colours",
            ),
            remedies=(
                "add magenta to take out the green cast",
                "shift the tint slider from green towards magenta",
                "correct the fluorescent tint with a custom white balance",
            ),
            touches=frozenset(("white_balance",)),
            step="tone",
            measure=measures.greenness,
            direction=1,
        ),
        State(
            "magenta",
            edit=partial(tone.tint, towards=(0.45, -0.6, 0.45)),
            strength=(0.2, 0.5),
            harm=0.6,
            phrases=(
                "the picture has a {very} magenta cast",
                "a {very} magenta tint lies over everything",
                "the whites look {too} magenta",
                "neutral surfaces turn {very} pink, almost magenta",
                "the colour balance is shifted {too} strongly towards magenta",
            ),
            nouns=(
                "a magenta tint",
                "a magenta colour cast",
                "a pinkish magenta shift of the colours",
            ),
            remedies=(
                "add green to take out the magenta cast",
                "shift the tint slider from magenta towards green",
                "remove the pink tint with a custom white balance",
            ),
            touches=frozenset(("white_balance",)),
            step="tone",
            measure=measures.greenness,
            direction=-1,
        ),
    ),
)
