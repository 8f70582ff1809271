"""AesMMIT: questions and answers about the aesthetics of photographs, written by GPT-4 from people's critiques.

Chosen for the variant with question-answer data: which sets its authors took is not known. The layout read is LLaVA's,
since the authors tuned LLaVA-1.5 on it with LLaVA's own code; their own file could not be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pandas as pd

from calm.data.obtain.ways import ByHand
from calm.data.reading.base import Card
from calm.data.reading.conversations import ConversationSource


class AesMmit(ConversationSource):
    """Conversations about aesthetics."""

    card = Card(
        title="AesMMIT: Aesthetic Multi-Modality Instruction Tuning",
        task="questions and answers about aesthetics, written by GPT-4 from critiques by people",
        size="21,904 photographs and pictures, 409K instructions",
        licence="not stated by the authors",
        terms="ask the authors; abide by OpenAI's terms of use",
        citation="Huang et al.: AesExpert: Towards Multi-modality Foundation Model for Image Aesthetics Perception, "
        "ACM Multimedia 2024",
        home="https://github.com/yipoh/AesExpert",
        acceptance="aesmmit-ask-the-authors",
    )
    obtain = (
        ByHand(
            "Ask the authors (https://yipoh.github.io/aes-expert/): the project page has the models and no link to the "
            "data. Put the json, its name beginning with AesMMIT, beside the photographs that it names."
        ),
    )
    published: ClassVar[Mapping[str, int]] = {"images": 21_904}

    @cached_property
    def path(self) -> Path:
        """The conversations."""
        return self.find("**/AesMMIT*.json")

    @cached_property
    def origin(self) -> str:
        """GPT-4 wrote the answers, from what people had said."""
        return "synthetic_gpt4"

    def comments(self, items: pd.DataFrame) -> pd.DataFrame:
        """Each answer with its question."""
        return self.answers(items)


SOURCE = AesMmit
