"""Light falling off or spilling in towards the corners."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import optics
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="vignette",
    level="middle",
    unchanged=State(
        "unchanged",
        phrases=(
            "the light is even out to the corners",
            "the corners are as clear as the middle",
            "the illumination is even across the frame",
            "the edges of the frame are evenly lit",
            "there is no fall-off towards the edges",
        ),
        nouns=(
            "the clear corners",
            "the even light across the frame",
            "the uniform illumination",
        ),
    ),
    states=(
        State(
            "dark_corners",
            edit=optics.shade_corners,
            strength=(0.6, 0.95),
            harm=0.35,
            phrases=(
                "the corners are {too} dark",
                "the vignette is {too} heavy",
                "the light fall-off towards the edges is {very} disturbing",
                "black corners close in on the picture and the vignetting is {very} heavy",
                "the frame has {very} dark corners",
            ),
            nouns=(
                "a heavy vignette",
                "dark corners",
                "strong light fall-off at the edges",
            ),
            remedies=(
                "correct the vignetting",
                "brighten the corners",
                "turn on the lens correction against fall-off",
                "stop the lens down to even out the edges",
            ),
            touches=frozenset(("corners",)),
            step="tone",
            measure=measures.corner_light,
            direction=-1,
        ),
        State(
            "bright_corners",
            edit=optics.haze_corners,
            strength=(0.5, 0.9),
            harm=0.45,
            phrases=(
                "the corners are {too} bright",
                "a white haze makes the edges {very} pale",
                "white haze covers the edges and is {too} strong",
                "the edges of the frame are {very} washed out by white haze",
                "the frame has {very} bright corners",
            ),
            nouns=(
                "bright corners",
                "a white vignette",
                "hazy white edges",
            ),
            remedies=(
                "remove the white haze from the edges",
                "darken the corners",
                "drop the white vignette effect",
                "shade the lens from stray light",
            ),
            touches=frozenset(("corners",)),
            step="tone",
            measure=measures.corner_light,
            direction=1,
        ),
    ),
)
