"""How far light and dark are apart."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import tone
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="contrast",
    level="low",
    unchanged=State(
        "unchanged",
        phrases=(
            "the contrast is well balanced",
            "light and dark are well separated",
            "the tonal range is pleasing",
            "the contrast gives the scene depth",
            "the contrast looks natural",
        ),
        nouns=(
            "the balanced contrast",
            "the full tonal range",
            "the natural contrast",
        ),
    ),
    states=(
        State(
            "flat",
            edit=tone.stretch,
            strength=(0.55, 0.2),
            harm=0.5,
            phrases=(
                "the contrast is {too} low",
                "the picture looks {very} flat and grey",
                "light and dark are {too} close together",
                "the tones are {very} flat",
                "a dull grey veil lies over the scene and the contrast is {too} weak",
            ),
            nouns=(
                "flat, grey tones",
                "a lack of contrast",
                "low contrast",
            ),
            remedies=(
                "increase the contrast",
                "set the black and white points further apart",
                "apply a gentle S-curve to add punch",
                "wait for light with more direction",
            ),
            touches=frozenset(("contrast",)),
            step="tone",
            measure=measures.luminance_spread,
            direction=-1,
        ),
        State(
            "harsh",
            edit=tone.stretch,
            strength=(1.8, 3.2),
            harm=0.5,
            phrases=(
                "the contrast is {too} strong",
                "the contrast looks {very} harsh",
                "shadows block up and highlights clip from {too} much contrast",
                "the transitions between light and dark are {too} hard",
                "the light is {very} harsh and middle tones are missing",
            ),
            nouns=(
                "harsh contrast",
                "excessive contrast",
                "hard transitions without middle tones",
            ),
            remedies=(
                "reduce the contrast",
                "open up the shadows and tame the highlights",
                "shoot in softer light",
                "use fill light to close the gap between light and dark",
            ),
            touches=frozenset(("contrast",)),
            step="tone",
            measure=measures.luminance_spread,
            direction=1,
        ),
    ),
)
