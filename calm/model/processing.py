"""Photographs and prompts to tensors: CalmImageProcessor and CalmProcessor, in transformers' conventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling

from calm.model.configuration import IMAGE_TOKEN, PLACEHOLDERS
from calm.model.pretrained import CLIP_MEAN, CLIP_STD, Preprocessing


class CalmImageProcessor(PilBackend):
    """Scale to a square of the encoder's size, whole frame, and normalise.

    The frame is neither cropped nor padded: cropping would hide the composition, and bars would be read as part of it.
    """

    model_input_names: ClassVar = ["pixel_values"]
    resample = PILImageResampling.BICUBIC
    image_mean: ClassVar = list(CLIP_MEAN)
    image_std: ClassVar = list(CLIP_STD)
    size: ClassVar = {"height": 336, "width": 336}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> CalmImageProcessor:
        """The image processor of an encoder."""
        size = {"height": preprocessing.size, "width": preprocessing.size}
        return cls(size=size, image_mean=list(preprocessing.mean), image_std=list(preprocessing.std))


class CalmProcessor(ProcessorMixin):
    """Expands every <image> of a prompt into the placeholders that the MFAM's tokens will take."""

    def __init__(
        self,
        image_processor: CalmImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        queries: int = 32,
        thematic_tokens: int = 576,
        **kwargs: Any,
    ) -> None:
        self.queries = queries
        self.thematic_tokens = thematic_tokens
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) if tokenizer is not None else None
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)

    @property
    def placeholders(self) -> str:
        """What one <image> becomes."""
        low, middle, high, thematic = PLACEHOLDERS
        levels = "".join(token * self.queries for token in (low, middle, high))
        return levels + thematic * self.thematic_tokens

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Called by transformers for every <image> in a prompt."""
        return self.placeholders

    def prompt(self, messages: Sequence[dict[str, str]]) -> str:
        """Conversation to text, ready for the model's answer, with <image> expanded."""
        template = self.chat_template or self.tokenizer.chat_template
        text: str = self.tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=True
        )
        return text.replace(IMAGE_TOKEN, self.placeholders)


def add_placeholders(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[int]:
    """Give a tokenizer the placeholder tokens, at ids outside the language model's vocabulary.

    Raises:
        ValueError: the tokenizer has room for them inside the vocabulary only.
    """
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [*PLACEHOLDERS, IMAGE_TOKEN]}, replace_extra_special_tokens=False
    )
    ids = tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))
    if min(ids) < vocab_size:
        raise ValueError(f"placeholder ids {ids} lie inside a vocabulary of {vocab_size}: pad the tokenizer first")
    return ids


def unit_pixels(image: Image.Image) -> torch.Tensor:
    """A photograph as (3, H, W) float in 0..1."""
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).float() / 255


def normalise(images: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Unit pixels (B, 3, H, W) to what the encoder expects (B, 3, S, S); agrees with `CalmImageProcessor`."""
    size = (preprocessing.size, preprocessing.size)
    if images.shape[-2:] != size:
        images = torch.nn.functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
    mean = torch.tensor(preprocessing.mean).view(3, 1, 1)
    std = torch.tensor(preprocessing.std).view(3, 1, 1)
    return (images - mean) / std
