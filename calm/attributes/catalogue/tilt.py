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
                "the picture leans {very} to the right",
                "the camera was tilted and everything tips {too} far clockwise",
                "the scene is rotated {very} clockwise",
                "the horizon slopes down to the right {very} strongly",
                "the verticals lean {too} far to the right",
            ),
            nouns=(
                "a clockwise tilt",
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
                "the picture leans {very} to the left",
                "the camera was tilted and everything tips {too} far counter-clockwise",
                "the scene is rotated {very} counter-clockwise",
                "the horizon slopes down to the left {very} strongly",
                "the verticals lean {too} far to the left",
            ),
            nouns=(
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
