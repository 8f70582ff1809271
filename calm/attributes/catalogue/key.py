"""Whether the mood lives in light or in dark tones."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import tone
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="key",
    level="high",
    unchanged=State(
        "unchanged",
        phrases=(
            "the tones run from deep to light",
            "the mood rests on middle tones",
            "dark and light areas share the frame evenly",
            "the tonal mood is balanced",
            "neither gloom nor glow dominates the mood",
        ),
        nouns=(
            "the balanced tonal mood",
            "the even share of light and shade",
        ),
    ),
    states=(
        State(
            "high_key",
            edit=tone.raise_key,
            strength=(0.5, 1.0),
            harm=0.2,
            phrases=(
                "the picture is a {very} airy high-key shot",
                "pale tones and a soft glow give a {very} dreamy high-key mood",
                "the mood is {very} light and airy, almost without shadows",
                "the scene glows in {very} pale, dreamy tones",
                "shadows have given way to a {very} soft, luminous glow",
            ),
            nouns=(
                "an airy mood",
                "a high-key mood",
                "airy, glowing tones",
                "a dreamy, luminous look",
            ),
            remedies=(
                "bring some real shadows back",
                "reduce the glow for a more grounded mood",
                "deepen the pale tones",
            ),
            touches=frozenset(("light", "contrast")),
            step="tone",
            measure=measures.shadow_level,
            direction=1,
        ),
        State(
            "low_key",
            edit=tone.lower_key,
            strength=(0.5, 1.0),
            harm=0.25,
            phrases=(
                "the picture is a {very} sombre low-key shot",
                "a few lights stand against {very} deep black, a low-key mood",
                "the mood is {very} gloomy and theatrical",
                "most of the scene sinks into {very} heavy black while the lights still glow",
                "the picture is built on {very} deep shadows and a few lights",
            ),
            nouns=(
                "theatrical, heavy shadows",
                "a low-key mood",
                "a sombre, gloomy look",
            ),
            remedies=(
                "lift the shadows for a lighter mood",
                "fill the blacks with soft light",
                "open up the shadow tones",
            ),
            touches=frozenset(("light", "contrast")),
            step="tone",
            measure=measures.deep_shadows,
            direction=1,
        ),
    ),
)
