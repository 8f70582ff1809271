"""ShareGPT4V: 102K photographs with long captions by GPT-4V. Generic pairs of the paper.

The photographs are those of COCO, LLaVA's pre-training set, SAM, WikiArt, TextVQA and web collections; they lie below
one folder as ShareGPT4V's instructions put them (`coco/train2017`, `llava/llava_pretrain/images`, `sam/images`, ...).
With `captions: share-captioner`, the 1.2 million captions by the authors' own captioner are read instead.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from calm.data.reading.conversations import ConversationSource
from calm.data.reading.folder import FolderSettings

FILES = {
    "gpt4v": "sharegpt4v_instruct_gpt4-vision_cap100k.json",
    "share-captioner": "share-captioner_coco_lcs_sam_1246k_1107.json",
}


class ShareGpt4vSettings(FolderSettings):
    """params.data.datasets.sharegpt4v."""

    captions: Literal["gpt4v", "share-captioner"] = "gpt4v"


class ShareGpt4v(ConversationSource, about=__file__):
    """Photographs with one long caption each."""

    settings_type = ShareGpt4vSettings
    settings: ShareGpt4vSettings
    captions = True

    @property
    def origin(self) -> str:
        """The model that wrote the captions."""
        return f"synthetic_{self.settings.captions.replace('-', '_')}"

    @cached_property
    def path(self) -> Path:
        """The json of the captions that are asked for."""
        return self.find(f"**/{FILES[self.settings.captions]}")


SOURCE = ShareGpt4v
