"""Whether the picture still looks like a photograph."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import finish, tone
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="style",
    level="high",
    unchanged=State(
        "unchanged",
        phrases=(
            "the picture keeps its photographic character",
            "it looks like an honest photograph",
            "no effect filter was used",
            "the photographic look is preserved",
            "surfaces keep their real texture",
        ),
        nouns=(
            "the honest photographic look",
            "the real textures",
        ),
    ),
    states=(
        State(
            "painterly",
            edit=finish.paint,
            strength=(2.5, 5.0),
            harm=0.4,
            phrases=(
                "the picture looks {very} painterly",
                "surfaces dissolve into brush strokes, which looks {very} painterly",
                "the photo resembles an oil painting {too} much",
                "the painting filter is {too} strong and turns texture into daubs",
                "the scene seems {very} coarsely painted with a brush",
            ),
            nouns=(
                "a painterly effect",
                "the look of an oil painting",
                "brush strokes instead of texture",
            ),
            remedies=(
                "remove the painting filter",
                "go back to the photograph without the oil paint effect",
                "keep the real texture instead of brush strokes",
            ),
            touches=frozenset(("focus",)),
            step="tone",
            measure=measures.texture,
            direction=-1,
        ),
        State(
            "posterised",
            edit=tone.posterise,
            strength=(5.0, 2.5),
            harm=0.6,
            phrases=(
                "the picture is {very} posterised",
                "smooth gradients break into {very} visible bands",
                "only a few tones are left and the photo looks {very} like a poster",
                "the posterised effect is {too} strong",
                "colours are reduced to {too} few steps, like a screen print",
            ),
            nouns=(
                "a posterised look",
                "visible bands instead of gradients",
                "the look of a screen print with few tones",
            ),
            remedies=(
                "remove the posterising effect",
                "use the full number of tones again",
                "restore the smooth gradients",
            ),
            touches=frozenset(("tones",)),
            step="print",
            measure=measures.tonal_variety,
            direction=-1,
        ),
    ),
)
