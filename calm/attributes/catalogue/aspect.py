"""Whether proportions are true."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import geometry
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="aspect",
    level="middle",
    unchanged=State(
        "unchanged",
        phrases=(
            "the proportions are natural",
            "shapes keep their true proportions",
            "nothing is stretched",
            "circles look round and squares look square",
            "the aspect ratio is correct",
        ),
        nouns=(
            "the natural proportions",
            "the correct aspect ratio",
            "the true shapes",
        ),
    ),
    states=(
        State(
            "stretched_wide",
            edit=geometry.widen,
            strength=(1.35, 2.1),
            harm=0.55,
            phrases=(
                "the picture is {very} stretched in width",
                "objects look {too} wide and squat",
                "everything is {very} stretched wide",
                "shapes are {too} broad for their height",
                "the scene is pulled apart horizontally and looks {too} broad",
            ),
            nouns=(
                "shapes stretched in width",
                "squat, widened proportions",
                "a wrong aspect ratio that makes things too wide",
            ),
            remedies=(
                "squeeze the width back to the true proportions",
                "scale the picture narrower",
                "resize it with the aspect ratio locked, less wide",
            ),
            touches=frozenset(("proportions",)),
            step="scene",
            measure=measures.upright_edges,
            direction=-1,
        ),
        State(
            "stretched_tall",
            edit=geometry.heighten,
            strength=(1.35, 2.1),
            harm=0.55,
            phrases=(
                "the picture is {very} stretched in height",
                "objects look {too} tall and thin",
                "everything is {very} stretched tall",
                "shapes are {too} high for their width",
                "the scene is pulled upwards and looks {too} narrow",
            ),
            nouns=(
                "shapes stretched in height",
                "thin, elongated proportions",
                "a wrong aspect ratio that makes things too tall",
            ),
            remedies=(
                "squeeze the height back to the true proportions",
                "scale the picture lower",
                "resize it with the aspect ratio locked, less tall",
            ),
            touches=frozenset(("proportions",)),
            step="scene",
            measure=measures.upright_edges,
            direction=1,
        ),
    ),
)
