"""How much light reached the picture."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import tone
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="brightness",
    level="low",
    unchanged=State(
        "unchanged",
        phrases=(
            "the exposure is well judged",
            "the brightness suits the scene",
            "both shadows and highlights hold their detail",
            "the picture is exposed just right",
            "the amount of light is right",
        ),
        nouns=(
            "the well judged exposure",
            "the balanced brightness",
            "the right amount of light",
        ),
    ),
    states=(
        State(
            "underexposed",
            edit=tone.expose,
            strength=(0.6, 0.25),
            harm=0.8,
            phrases=(
                "the picture is {too} dark",
                "the photo is {very} underexposed",
                "not enough light reached the picture",
                "the whole scene is {too} dim to make out",
                "the exposure is {too} low and details sink into the dark",
            ),
            nouns=(
                "underexposure",
                "a lack of light",
                "an exposure that is too low",
            ),
            remedies=(
                "raise the exposure by a stop or two",
                "use a longer exposure or a wider aperture",
                "brighten the whole picture",
                "let more light into the camera",
            ),
            touches=frozenset(("light",)),
            step="tone",
            measure=measures.luminance,
            direction=-1,
        ),
        State(
            "overexposed",
            edit=tone.expose,
            strength=(1.5, 2.3),
            harm=0.8,
            phrases=(
                "the picture is {too} bright",
                "the photo is {very} overexposed",
                "the highlights are {very} blown out",
                "{too} much light has washed out the bright areas",
                "the exposure is {too} high and the whites have lost their detail",
            ),
            nouns=(
                "overexposure",
                "blown highlights",
                "an exposure that is too high",
            ),
            remedies=(
                "lower the exposure by a stop or two",
                "use a shorter exposure time",
                "recover the highlights by darkening the picture",
                "meter for the brightest part of the scene",
            ),
            touches=frozenset(("light",)),
            step="tone",
            measure=measures.luminance,
            direction=1,
        ),
    ),
)
