"""AesMMIT: questions and answers about the aesthetics of photographs, written by GPT-4 from people's critiques.

Chosen for the variant with question-answer data: which sets its authors took is not known. The layout read is LLaVA's,
since the authors tuned LLaVA-1.5 on it with LLaVA's own code; their own file could not be seen.
"""

from __future__ import annotations

from calm.data.reading.conversations import ConversationSource


class AesMmit(ConversationSource, about=__file__):
    """Conversations about aesthetics."""

    json = "AesMMIT*.json"
    writer = "gpt4"  # from what people had said
    captions = False


SOURCE = AesMmit
