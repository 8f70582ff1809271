"""LLaVA-1.5's mix of 665K conversations: questions and answers about photographs of COCO, GQA, OCR-VQA, TextVQA and
Visual Genome.

Chosen for the variant with question-answer data: which sets its authors took is not known. Records without a photograph
(40,688 of ShareGPT) are left out. Answers of people and of GPT-4 stand beside one another and the file does not tell
them apart, so that all are called synthetic.
"""

from __future__ import annotations

from calm.data.reading.conversations import ConversationSource


class LlavaInstruct(ConversationSource, about=__file__):
    """Conversations of several turns about photographs."""

    json = "llava_v1_5_mix665k.json"
    writer = "llava_mix"  # people and GPT-4
    captions = False


SOURCE = LlavaInstruct
