"""Looks of film and of its processing."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import tone
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="film",
    level="high",
    unchanged=State(
        "unchanged",
        phrases=(
            "the rendering is modern and clean",
            "the processing is discreet",
            "the colours follow no film look",
            "the processing stays out of the way",
            "the picture looks straight out of the camera",
        ),
        nouns=(
            "the discreet processing",
            "the clean, modern rendering",
        ),
    ),
    states=(
        State(
            "faded",
            edit=tone.fade,
            strength=(0.5, 1.0),
            harm=0.25,
            phrases=(
                "the picture has a {very} faded film look",
                "blacks are lifted to a milky lilac and look {very} faded",
                "the photo looks {very} faded, like an old print left in the sun",
                "a {very} milky matte look lies over the shadows",
                "the print seems {very} aged, with creamy whites and milky blacks",
            ),
            nouns=(
                "a faded film look",
                "milky matte blacks",
                "the look of an old, faded print",
            ),
            remedies=(
                "set the black point back to real black",
                "remove the faded film preset",
                "give the milky shadows their depth again",
            ),
            touches=frozenset(("contrast", "colour")),
            step="tone",
            measure=measures.black_point,
            direction=1,
        ),
        State(
            "cross_processed",
            edit=tone.cross_process,
            strength=(0.55, 1.0),
            harm=0.35,
            phrases=(
                "the picture looks {very} cross-processed",
                "shadows turn blue and highlights yellow in a {very} experimental way",
                "the colours are {very} strange, as from slide film in the wrong chemicals",
                "a {very} obvious cross-processed look shifts all the colours",
                "yellow lights over blue shadows look {very} odd",
            ),
            nouns=(
                "crossed film colours",
                "a cross-processed look",
                "blue shadows and yellow highlights",
                "the colours of wrongly developed slide film",
            ),
            remedies=(
                "turn off the cross-processing effect",
                "bring the colour curves back in line",
                "neutralise the blue shadows and yellow highlights",
            ),
            touches=frozenset(("white_balance", "colour")),
            step="tone",
            measure=measures.split_toning,
            direction=1,
        ),
    ),
)
