"""ShareGPT4V: 102K photographs with long captions by GPT-4V. Generic pairs of the paper.

The photographs are those of COCO, LLaVA's pre-training set, SAM, WikiArt, TextVQA and web collections; they lie below
one folder as ShareGPT4V's instructions put them (`coco/train2017`, `llava/llava_pretrain/images`, `sam/images`, ...).
With `captions: share-captioner`, the 1.2 million captions by the authors' own captioner are read instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd

from calm.data.obtain.ways import ByHand
from calm.data.reading.base import Card
from calm.data.reading.conversations import ConversationSource
from calm.data.reading.folder import FolderSettings

FILES = {
    "gpt4v": "sharegpt4v_instruct_gpt4-vision_cap100k.json",
    "share-captioner": "share-captioner_coco_lcs_sam_1246k_1107.json",
}


class ShareGpt4vSettings(FolderSettings):
    """params.data.datasets.sharegpt4v."""

    captions: Literal["gpt4v", "share-captioner"] = "gpt4v"


class ShareGpt4v(ConversationSource):
    """Photographs with one long caption each."""

    card = Card(
        title="ShareGPT4V",
        task="one long caption by GPT-4V per photograph; 1.2 million more by Share-Captioner",
        size="102,025 photographs of COCO, LCS-558K, SAM, WikiArt, TextVQA and web collections",
        licence="captions CC BY-NC 4.0; photographs: their sets' licences",
        terms="non-commercial; abide by OpenAI's terms of use, and SAM's licence for its photographs",
        citation="Chen et al.: ShareGPT4V: Improving Large Multi-Modal Models with Better Captions, ECCV 2024",
        home="https://huggingface.co/datasets/Lin-Chen/ShareGPT4V",
        acceptance="sharegpt4v-cc-by-nc-4.0",
    )
    settings_type = ShareGpt4vSettings
    obtain = (
        ByHand(
            "Download sharegpt4v_instruct_gpt4-vision_cap100k.json from the hub, and the photographs as the section "
            "'Prepare Images' of the ShareGPT4V project says: COCO train2017, LLaVA-Pretrain's images, SAM's "
            "sa_000000 to sa_000050 (licence by form), web-celebrity, web-landmark, wikiart, share_textvqa, all below "
            "one folder with the paths that the json has."
        ),
    )
    published: ClassVar[Mapping[str, int]] = {"captions": 102_025}
    explained: ClassVar[Mapping[str, str]] = {
        "captions": "with captions: share-captioner, the 1.2 million of the authors' own captioner are read",
    }

    @property
    def settings(self) -> ShareGpt4vSettings:
        """The checked settings."""
        assert isinstance(self._settings, ShareGpt4vSettings)
        return self._settings

    @cached_property
    def origin(self) -> str:
        """The model that wrote the captions."""
        return f"synthetic_{self.settings.captions.replace('-', '_')}"

    @cached_property
    def path(self) -> Path:
        """The json of the captions that are asked for."""
        return self.find(f"**/{FILES[self.settings.captions]}")

    def comments(self, items: pd.DataFrame) -> pd.DataFrame:
        """The captions, called synthetic: models wrote them."""
        return self.captions(items)


SOURCE = ShareGpt4v
