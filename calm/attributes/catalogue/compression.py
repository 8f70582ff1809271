"""Traces of a file saved too small."""

from __future__ import annotations

from calm.attributes import measures
from calm.attributes.operations import finish
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="compression",
    level="low",
    unchanged=State(
        "unchanged",
        phrases=(
            "the file quality is high",
            "there are no artefacts in the file",
            "gradients are free of blocks",
            "the file was saved with care",
            "the image data is intact",
        ),
        nouns=(
            "the high file quality",
            "the artefact-free file",
            "the clean gradients",
        ),
    ),
    states=(
        State(
            "compressed",
            edit=finish.jpeg,
            strength=(15, 4),
            harm=0.8,
            phrases=(
                "the file is {very} compressed",
                "square blocks are {very} visible",
                "the picture is {very} blocky from JPEG compression",
                "compression artefacts around edges are {very} ugly",
                "the JPEG quality is {too} low",
            ),
            nouns=(
                "compression artefacts",
                "JPEG blocks",
                "blocky file compression",
            ),
            remedies=(
                "save the file with less compression",
                "export at a higher JPEG quality",
                "go back to the original file and export it again",
                "avoid saving the JPEG over and over",
            ),
            touches=frozenset(("file",)),
            step="file",
            measure=measures.blockiness,
            direction=1,
        ),
    ),
)
