"""What the frame includes."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import geometry
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="framing",
    level="middle",
    unchanged=State(
        "unchanged",
        phrases=(
            "the framing is well chosen",
            "the subject has space around it",
            "the frame holds all that matters",
            "the composition fills the frame well",
            "nothing important is cut off",
        ),
        nouns=(
            "the well chosen framing",
            "the room around the subject",
            "the complete composition",
        ),
    ),
    states=(
        State(
            "tight",
            edit=geometry.crop,
            strength=(1.6, 2.3),
            harm=0.4,
            phrases=(
                "the crop is {too} tight",
                "the framing is {too} close and cuts things off",
                "the subject has no room to breathe",
                "the picture is cropped {too} closely",
                "the frame is {too} tight to show where we are",
            ),
            nouns=(
                "a tight crop",
                "a framing that cuts things off",
                "too little room around the subject",
            ),
            remedies=(
                "step back and include more of the scene",
                "crop less",
                "leave more room around the subject",
                "use a wider lens",
            ),
            touches=frozenset(("crop",)),
            step="scene",
            measure=measures.feature_size,
            direction=1,
        ),
        State(
            "letterboxed",
            edit=geometry.letterbox,
            strength=(0.1, 0.2),
            harm=0.4,
            phrases=(
                "black bars above and below make the picture {too} narrow",
                "the photo is {very} letterboxed",
                "wide black bars take {too} much of the frame",
                "the bars at top and bottom are {very} distracting",
                "the frame is {very} letterboxed, with black strips along its edges",
            ),
            nouns=(
                "wide black strips",
                "black bars at top and bottom",
                "a letterboxed frame",
            ),
            remedies=(
                "crop away the black bars",
                "remove the bars at the top and bottom",
                "fill the whole frame with the picture",
            ),
            touches=frozenset(("corners",)),
            step="print",
            measure=measures.black_bars,
            direction=1,
        ),
    ),
)
