"""How crisp detail is all over the picture."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import optics
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="sharpness",
    level="low",
    unchanged=State(
        "unchanged",
        phrases=(
            "the picture is crisp and sharp",
            "fine detail is rendered cleanly",
            "the focus is spot on",
            "edges are sharp without halos",
            "the sharpness is just right",
        ),
        nouns=(
            "the crisp detail",
            "the accurate focus",
            "the clean sharpness",
        ),
    ),
    states=(
        State(
            "blurred",
            edit=optics.blur,
            strength=(1.0, 3.0),
            harm=0.9,
            phrases=(
                "the whole picture is {very} blurred",
                "nothing in the frame is sharp and all detail is {very} blurred",
                "the photo is {very} out of focus everywhere",
                "the shot is {very} blurred and fine detail is lost",
                "the image looks {very} fuzzy",
            ),
            nouns=(
                "blurred detail everywhere",
                "blur over the whole picture",
                "a general lack of sharpness",
            ),
            remedies=(
                "focus more carefully",
                "use a tripod or a faster shutter speed",
                "check the focus before pressing the shutter",
                "retake it with steady hands and accurate autofocus",
            ),
            touches=frozenset(("focus",)),
            step="lens",
            measure=measures.fine_detail,
            direction=-1,
        ),
        State(
            "oversharpened",
            edit=optics.sharpen,
            strength=(2.0, 5.0),
            harm=0.5,
            phrases=(
                "the picture is {very} oversharpened",
                "edges carry {very} visible halos",
                "the sharpening is {too} strong",
                "edges look {very} brittle and outlined",
                "the sharpening is {too} aggressive and draws bright lines along every edge",
            ),
            nouns=(
                "sharpening halos",
                "oversharpened edges",
                "aggressive sharpening",
            ),
            remedies=(
                "sharpen less",
                "reduce the amount of the unsharp mask",
                "remove the halos by turning down the sharpening",
                "use a smaller sharpening amount and radius",
            ),
            touches=frozenset(("focus",)),
            step="print",
            measure=measures.fine_detail,
            direction=1,
        ),
    ),
)
