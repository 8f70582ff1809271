"""Random grain."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import finish
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="noise",
    level="low",
    unchanged=State(
        "unchanged",
        phrases=(
            "the picture is clean and free of grain",
            "smooth areas stay smooth",
            "shadows are clean",
            "there is no visible grain",
            "plain surfaces look clean",
        ),
        nouns=(
            "the clean shadows",
            "the clean, grain-free surfaces",
            "the smooth tones",
        ),
    ),
    states=(
        State(
            "noisy",
            edit=finish.add_noise,
            strength=(0.06, 0.18),
            harm=0.8,
            phrases=(
                "the picture is {very} noisy",
                "{very} coarse grain covers the photo",
                "smooth areas are {very} grainy",
                "coloured speckles make the image {very} noisy",
                "the grain is {too} strong",
            ),
            nouns=(
                "visible noise",
                "coarse grain",
                "speckled noise in smooth areas",
            ),
            remedies=(
                "use a lower ISO",
                "reduce the noise in processing",
                "add light so that a lower sensitivity is enough",
                "apply careful denoising to remove the grain",
            ),
            touches=frozenset(("grain",)),
            step="print",
            measure=measures.noise_level,
            direction=1,
        ),
    ),
)
