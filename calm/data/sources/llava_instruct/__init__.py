"""LLaVA-1.5's mix of 665K conversations: questions and answers about photographs of COCO, GQA, OCR-VQA, TextVQA and
Visual Genome.

Chosen for the variant with question-answer data: which sets its authors took is not known. Records without a photograph
(40,688 of ShareGPT) are left out. Answers of people and of GPT-4 stand beside one another and the file does not tell
them apart, so that all are called synthetic.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pandas as pd

from calm.data.reading.conversations import ConversationSource


class LlavaInstruct(ConversationSource, about=__file__):
    """Conversations of several turns about photographs."""

    @cached_property
    def path(self) -> Path:
        """The conversations."""
        return self.find("**/llava_v1_5_mix665k.json")

    @cached_property
    def origin(self) -> str:
        """People's and GPT-4's answers, mixed."""
        return "synthetic_llava_mix"

    def comments(self, items: pd.DataFrame) -> pd.DataFrame:
        """Each answer with its question."""
        return self.answers(items)


SOURCE = LlavaInstruct
