"""How strong the colours are."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import tone
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="saturation",
    level="low",
    unchanged=State(
        "unchanged",
        phrases=(
            "the colours are rich yet natural",
            "the saturation is well chosen",
            "the colours have the right strength",
            "the colours look true to life",
            "the colour intensity feels balanced",
        ),
        nouns=(
            "the natural colours",
            "the well chosen saturation",
            "the balanced colour intensity",
        ),
    ),
    states=(
        State(
            "muted",
            edit=tone.saturate,
            strength=(0.5, 0.15),
            harm=0.35,
            phrases=(
                "the colours are {very} muted",
                "the colours look {too} pale",
                "there is hardly any colour left in the scene",
                "the saturation is {too} low",
                "the colours are {very} dull and lifeless",
            ),
            nouns=(
                "muted colours",
                "low saturation",
                "pale, lifeless colours",
            ),
            remedies=(
                "increase the saturation",
                "bring the colours back with more vibrance",
                "strengthen the pale colours",
                "give the colours more intensity",
            ),
            touches=frozenset(("colour",)),
            step="tone",
            measure=measures.chroma,
            direction=-1,
        ),
        State(
            "oversaturated",
            edit=tone.saturate,
            strength=(1.8, 3.2),
            harm=0.5,
            phrases=(
                "the colours are {very} oversaturated",
                "the colours are {too} loud",
                "the saturation is {too} high",
                "the colours look {very} garish and artificial",
                "the colours are {too} intense to look real",
            ),
            nouns=(
                "oversaturated colours",
                "garish colours",
                "excessive saturation",
            ),
            remedies=(
                "reduce the saturation",
                "tone the colours down",
                "pull back the vibrance until colours look real",
                "calm the loudest colours",
            ),
            touches=frozenset(("colour",)),
            step="tone",
            measure=measures.chroma,
            direction=1,
        ),
    ),
)
