"""Whether tone mapping shows."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import tone
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="dynamic_range",
    level="high",
    unchanged=State(
        "unchanged",
        phrases=(
            "the light looks natural",
            "the tone mapping is restrained",
            "the scene keeps its natural light",
            "the tones look believable",
            "the processing of light and shade is subtle",
        ),
        nouns=(
            "the natural light",
            "the restrained tone mapping",
        ),
    ),
    states=(
        State(
            "hdr",
            edit=tone.tone_map,
            strength=(0.6, 1.3),
            harm=0.4,
            phrases=(
                "the picture has a {very} overdone HDR look",
                "the HDR effect is {too} strong",
                "halos and gritty detail give a {very} artificial HDR look",
                "the tone mapping is {too} aggressive",
                "every surface looks {very} gritty from tone mapping",
            ),
            nouns=(
                "aggressive tone mapping",
                "an overdone HDR look",
                "gritty detail with halos",
            ),
            remedies=(
                "turn the HDR effect down",
                "use less tone mapping",
                "blend the HDR version with the plain exposure",
            ),
            touches=frozenset(("contrast", "colour")),
            step="tone",
            measure=measures.local_contrast,
            direction=1,
        ),
    ),
)
