"""LLaVA's pre-training set: 558K photographs of LAION, CC and SBU with captions by BLIP. Generic pairs of the paper."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pandas as pd

from calm.data.reading.conversations import ConversationSource


class LlavaPretrain(ConversationSource, about=__file__):
    """Photographs with one caption each; the question that LLaVA puts before it is left out."""

    @cached_property
    def path(self) -> Path:
        """The captions."""
        return self.find("**/blip_laion_cc_sbu_558k.json")

    @cached_property
    def origin(self) -> str:
        """BLIP wrote them."""
        return "synthetic_blip"

    def comments(self, items: pd.DataFrame) -> pd.DataFrame:
        """The captions, called synthetic: BLIP wrote them."""
        return self.captions(items)


SOURCE = LlavaPretrain
