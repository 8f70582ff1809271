"""How much there is to distract the eye."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import geometry
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="clutter",
    level="middle",
    unchanged=State(
        "unchanged",
        phrases=(
            "the composition is clean and simple",
            "nothing distracts from the subject",
            "the scene is tidy",
            "the eye finds the subject at once",
            "the arrangement is uncluttered",
        ),
        nouns=(
            "the clean composition",
            "the tidy scene",
            "the lack of distractions",
        ),
    ),
    states=(
        State(
            "cluttered",
            edit=geometry.scatter_patches,
            strength=(5.0, 14.0),
            harm=0.75,
            phrases=(
                "the scene is {very} cluttered",
                "there are {too} many distracting pieces in the frame",
                "the composition is {too} busy",
                "scattered fragments make the picture {very} cluttered",
                "{too} much is going on for the eye to find rest",
            ),
            nouns=(
                "a cluttered scene",
                "distracting fragments",
                "a busy composition",
            ),
            remedies=(
                "remove the distracting pieces",
                "simplify the composition",
                "clear the scene so that one subject stands out",
                "choose a simpler view with fewer things in it",
            ),
            touches=frozenset(("clutter",)),
            step="scene",
            measure=measures.edge_density,
            direction=1,
        ),
    ),
)
