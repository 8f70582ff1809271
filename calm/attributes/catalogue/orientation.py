"""Which way up the picture is."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import geometry
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="orientation",
    level="middle",
    unchanged=State(
        "unchanged",
        phrases=(
            "the picture is the right way up",
            "the orientation is correct",
            "up is up and down is down",
            "the photo is shown the way it was seen",
            "the picture stands the right way",
        ),
        nouns=(
            "the correct orientation",
            "the right way up",
        ),
    ),
    states=(
        State(
            "upside_down",
            edit=geometry.turn_over,
            strength=(1.0, 1.0),
            harm=0.6,
            phrases=(
                "the picture is upside down",
                "the photo stands on its head",
                "the scene hangs upside down",
                "top and bottom are swapped",
                "everything is the wrong way up, turned by half a circle",
            ),
            nouns=(
                "an upside down picture",
                "a picture that stands on its head",
                "swapped top and bottom",
            ),
            remedies=(
                "turn the picture by 180 degrees",
                "flip it the right way up",
                "rotate it by half a turn",
            ),
            touches=frozenset(("rotation", "proportions")),
            step="scene",
            measure=measures.light_from_above,
            direction=-1,
        ),
        State(
            "sideways",
            edit=geometry.rotate,
            strength=(90.0, 90.0),
            harm=0.6,
            phrases=(
                "the picture lies sideways",
                "the photo is turned sideways by a quarter of a circle",
                "the scene lies on its side",
                "what should stand upright lies on its side",
                "the picture was never rotated upright and lies sideways",
            ),
            nouns=(
                "a sideways picture",
                "a picture lying on its side",
                "a missing quarter turn",
            ),
            remedies=(
                "rotate the picture by 90 degrees to the left",
                "give it a quarter turn so that it stands upright",
                "set it upright with a quarter turn",
            ),
            touches=frozenset(("rotation", "proportions")),
            step="scene",
            measure=measures.light_from_right,
            direction=1,
        ),
    ),
)
