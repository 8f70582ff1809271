"""Whether verticals stand and the horizon lies."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import geometry
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="tilt",
    level="middle",
    unchanged=State(
        "unchanged",
        phrases=(
            "the horizon is level",
            "the verticals are straight",
            "the camera was held straight",
            "the lines of the scene are level and upright",
            "the frame is perfectly level",
        ),
        nouns=(
            "the level horizon",
            "the straight verticals",
            "the carefully levelled frame",
        ),
    ),
    states=(
        State(
            "clockwise",
            edit=geometry.rotate,
            strength=(6.0, 16.0),
            harm=0.5,
            phrases=(
                "the picture is {very} tilted to the right",
                "the camera was {very} tilted and everything tips clockwise",
                "the scene is turned clockwise and looks {very} unsteady",
                "the horizon is {very} crooked and drops to the right",
                "the verticals lean {too} strongly to the right",
            ),
            nouns=(
                "a clockwise tilt",
                "a rightward tilt",
                "a horizon that drops to the right",
                "verticals that lean to the right",
            ),
            remedies=(
                "rotate the picture counter-clockwise until it is level",
                "straighten the picture by turning it to the left",
                "level the horizon by lifting its right end",
            ),
            touches=frozenset(("rotation",)),
            step="scene",
            measure=measures.lean,
            direction=1,
        ),
        State(
            "counter_clockwise",
            edit=geometry.rotate,
            strength=(-6.0, -16.0),
            harm=0.5,
            phrases=(
                "the picture is {very} tilted to the left",
                "the camera was {very} tilted and everything tips counter-clockwise",
                "the scene is turned counter-clockwise and looks {very} unsteady",
                "the horizon is {very} crooked and drops to the left",
                "the verticals lean {too} strongly to the left",
            ),
            nouns=(
                "a leftward tilt",
                "a counter-clockwise tilt",
                "a horizon that drops to the left",
                "verticals that lean to the left",
            ),
            remedies=(
                "rotate the picture clockwise until it is level",
                "straighten the picture by turning it to the right",
                "level the horizon by lifting its left end",
            ),
            touches=frozenset(("rotation",)),
            step="scene",
            measure=measures.lean,
            direction=-1,
        ),
    ),
)
