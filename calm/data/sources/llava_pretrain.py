"""LLaVA's pre-training set: 558K photographs of LAION, CC and SBU with captions by BLIP. Generic pairs of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pandas as pd

from calm.data.obtain.ways import HubFiles
from calm.data.reading.base import Card
from calm.data.reading.conversations import ConversationSource


class LlavaPretrain(ConversationSource):
    """Photographs with one caption each; the question that LLaVA puts before it is left out."""

    card = Card(
        title="LLaVA Visual Instruct Pretrain LCS-558K (LAION-CC-SBU)",
        task="one caption by BLIP per photograph",
        size="558,128 photographs, images.zip of 27.4 GB, captions of 181 MB",
        licence="photographs: their owners'; captions: CC-3M's, BLIP's and the hub card's terms",
        terms="abide by the licences of CC-3M and BLIP; LAION's photographs stay their owners'",
        citation="Liu, Li, Li, Lee: Improved Baselines with Visual Instruction Tuning, CVPR 2024",
        home="https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain",
        acceptance="llava-pretrain-cc3m-and-blip-terms",
    )
    obtain = (
        HubFiles(
            "liuhaotian/LLaVA-Pretrain",
            "70f9d1e5e1a697fe35830875cfc7de1dd590d727",
            ("blip_laion_cc_sbu_558k.json", "images.zip"),
        ),
    )
    published: ClassVar[Mapping[str, int]] = {"images": 558_128, "captions": 558_128}

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
