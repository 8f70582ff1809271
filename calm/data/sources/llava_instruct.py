"""LLaVA-1.5's mix of 665K conversations: questions and answers about photographs of COCO, GQA, OCR-VQA, TextVQA and
Visual Genome.

Chosen for the variant with question-answer data: which sets its authors took is not known. Records without a photograph
(40,688 of ShareGPT) are left out. Answers of people and of GPT-4 stand beside one another and the file does not tell
them apart, so that all are called synthetic.
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


class LlavaInstruct(ConversationSource):
    """Conversations of several turns about photographs."""

    card = Card(
        title="LLaVA-1.5 instruction mix (llava_v1_5_mix665k)",
        task="questions and answers about photographs, in several turns",
        size="665,298 records, 624,610 of them with a photograph of five sets",
        licence="CC BY 4.0 for LLaVA's part, the licences of COCO, GQA, OCR-VQA, TextVQA and Visual Genome for theirs",
        terms="abide by OpenAI's terms of use: part of it was written by GPT-4",
        citation="Liu, Li, Li, Lee: Improved Baselines with Visual Instruction Tuning, CVPR 2024",
        home="https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K",
        acceptance="llava-instruct-openai-terms",
    )
    obtain = (
        ByHand(
            "Download llava_v1_5_mix665k.json from the hub, and the photographs as the section 'Visual Instruction "
            "Tuning' of LLaVA's README says: coco/train2017, gqa/images, ocr_vqa/images (all as .jpg), "
            "textvqa/train_images, vg/VG_100K and vg/VG_100K_2, all below one folder."
        ),
    )
    published: ClassVar[Mapping[str, int]] = {"records": 665_298, "without_image": 40_688}

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
