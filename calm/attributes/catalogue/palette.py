"""Whether the picture lives by colour or by one tone."""

from __future__ import annotations

from functools import partial

from calm.attributes import measures
from calm.attributes.operations import tone
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="palette",
    level="high",
    unchanged=State(
        "unchanged",
        phrases=(
            "the scene is shown in full colour",
            "the palette is varied",
            "many hues live side by side",
            "the full colour palette is kept",
            "different hues play together",
        ),
        nouns=(
            "the full colour palette",
            "the varied hues",
        ),
    ),
    states=(
        State(
            "monochrome",
            edit=partial(tone.duotone, middle=(0.5, 0.5, 0.5)),
            strength=(0.9, 1.0),
            harm=0.1,
            phrases=(
                "the picture is in black and white",
                "the scene is rendered in pure monochrome",
                "all colour is gone and only greys remain",
                "the photo is a monochrome study in grey",
                "the picture does without any colour",
            ),
            nouns=(
                "pure greys",
                "a black and white rendering",
                "a monochrome palette",
            ),
            remedies=(
                "bring back the colour version",
                "convert it back from black and white to colour",
                "show the scene in colour",
            ),
            touches=frozenset(("colour", "white_balance")),
            step="tone",
            measure=measures.strongest_colour,
            direction=-1,
        ),
        State(
            "sepia",
            edit=partial(tone.duotone, middle=(0.66, 0.49, 0.33)),
            strength=(0.75, 1.0),
            harm=0.2,
            phrases=(
                "the picture is toned in sepia",
                "the scene is rendered in brown sepia tones",
                "the photo looks like an antique brown print",
                "brown sepia replaces all other colours",
                "a nostalgic sepia tone covers the scene",
            ),
            nouns=(
                "a sepia tone",
                "antique brown toning",
                "a nostalgic sepia look",
            ),
            remedies=(
                "remove the sepia toning",
                "replace the brown tone by real colours",
                "go back to the untoned original",
            ),
            touches=frozenset(("colour", "white_balance")),
            step="tone",
            measure=measures.single_hue,
            direction=1,
        ),
    ),
)
