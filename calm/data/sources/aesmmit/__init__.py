"""AesMMIT: questions and answers about the aesthetics of photographs, written by GPT-4 from people's critiques.

Chosen for the variant with question-answer data: which sets its authors took is not known. The layout read is LLaVA's,
since the authors tuned LLaVA-1.5 on it with LLaVA's own code; their own file could not be seen.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pandas as pd

from calm.data.reading.conversations import ConversationSource


class AesMmit(ConversationSource, about=__file__):
    """Conversations about aesthetics."""

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
