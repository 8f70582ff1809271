"""Which part of the picture is in focus."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import optics
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="depth_of_field",
    level="middle",
    unchanged=State(
        "unchanged",
        phrases=(
            "the depth of field suits the subject",
            "subject and surroundings are both in focus",
            "everything from front to back is in focus",
            "the focus lies where it should",
            "the zone of focus is well placed",
        ),
        nouns=(
            "the well placed focus",
            "the well chosen depth of field",
            "the front-to-back focus",
        ),
    ),
    states=(
        State(
            "soft_background",
            edit=optics.blur_background,
            strength=(2.5, 6.0),
            harm=0.15,
            phrases=(
                "only the middle is in focus and the surroundings are {very} soft",
                "the background is {very} out of focus",
                "the depth of field is {very} shallow",
                "the surroundings of the subject dissolve into a {very} soft background",
                "everything around the subject is {very} defocused",
            ),
            nouns=(
                "a soft background",
                "a shallow depth of field",
                "defocused surroundings",
            ),
            remedies=(
                "stop down the aperture to bring the background into focus",
                "use a smaller aperture for more depth of field",
                "step back to get more of the scene in focus",
            ),
            touches=frozenset(("focus",)),
            step="lens",
            measure=measures.middle_focus,
            direction=1,
        ),
        State(
            "soft_subject",
            edit=optics.blur_subject,
            strength=(2.5, 6.0),
            harm=0.75,
            phrases=(
                "the focus missed the subject, which is {very} soft",
                "the middle of the picture is {very} out of focus while the edges are crisp",
                "the subject is {very} defocused",
                "the camera focused on the surroundings and left a {very} soft subject",
                "the main subject is {too} soft although its surroundings are in focus",
            ),
            nouns=(
                "a soft subject",
                "missed focus on the subject",
                "focus on the surroundings instead of the subject",
            ),
            remedies=(
                "put the focus point on the subject",
                "refocus on the middle of the scene",
                "choose the autofocus point by hand and place it on the subject",
            ),
            touches=frozenset(("focus",)),
            step="lens",
            measure=measures.middle_focus,
            direction=-1,
        ),
    ),
)
