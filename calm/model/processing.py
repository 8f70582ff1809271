"""Photographs and prompts to tensors: CalmImageProcessor and CalmProcessor, in transformers' conventions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import PILImageResampling

from calm.data.store.pixels import upright_srgb
from calm.model.configuration import IMAGE_TOKEN, PLACEHOLDERS

Resampling = Literal["bilinear", "bicubic"]  # filters that PIL and torch both have
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class PartError(ValueError):
    """A pretrained part that is missing or is not what it should be."""


@dataclass(frozen=True)
class Preprocessing:
    """What an encoder expects: square pixels of `size`, channels normalised by mean and standard deviation (0-1)."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resampling: Resampling = "bicubic"

    @staticmethod
    def of(processor: BaseImageProcessor) -> Preprocessing:
        """As an image processor of transformers does it.

        Raises:
            PartError: it resamples by a filter that edited photographs could not be brought to its size with.
        """
        size = processor.size.get("height") or processor.size["shortest_edge"]
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
        match PILImageResampling(processor.resample):
            case PILImageResampling.BICUBIC:
                return Preprocessing(size, mean, std, "bicubic")
            case PILImageResampling.BILINEAR:
                return Preprocessing(size, mean, std, "bilinear")
            case other:
                raise PartError(f"parts.vision: its processor resamples by {other.name.lower()}: bilinear or bicubic")


class CalmImageProcessor(PilBackend):
    """Scale to a square of the encoder's size, whole frame, and normalise.

    The frame is neither cropped nor padded: cropping would hide the composition, and bars would be read as part of it.
    A photograph that Pillow has opened is turned upright, brought to sRGB and scaled down to `max_side` first, as those
    were that the model learnt from. What was so prepared already stays as it is.

    Args:
        max_side: pixels of the longer side at most; None leaves photographs as they come.
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

    def __init__(self, max_side: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_side = max_side

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Called by transformers for every image, before it is resized."""
        if self.max_side is not None and isinstance(image, Image.Image):
            image = upright_srgb(image, self.max_side)
        pixels: np.ndarray = super().process_image(image, *args, **kwargs)
        return pixels

    @classmethod
    def of(cls, preprocessing: Preprocessing, max_side: int | None = None) -> CalmImageProcessor:
        """The image processor of an encoder."""
        size = {"height": preprocessing.size, "width": preprocessing.size}
        resample = PILImageResampling[preprocessing.resampling.upper()]
        mean, std = list(preprocessing.mean), list(preprocessing.std)
        return cls(max_side, size=size, resample=resample, image_mean=mean, image_std=std)


class CalmProcessor(ProcessorMixin):
    """Expands every <image> of a prompt into the placeholders that the MFAM's tokens will take."""

    def __init__(
        self,
        image_processor: CalmImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        queries: int = 32,
        thematic_tokens: int = 576,
        told_tokens: int = 0,
        **kwargs: Any,
    ) -> None:
        self.queries = queries
        self.thematic_tokens = thematic_tokens
        self.told_tokens = told_tokens
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) if tokenizer is not None else None
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)

    @property
    def placeholders(self) -> str:
        """What one <image> becomes."""
        low, middle, high, thematic, words = PLACEHOLDERS
        levels = "".join(token * self.queries for token in (low, middle, high))
        return levels + thematic * self.thematic_tokens + words * self.told_tokens

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Called by transformers for every <image> in a prompt."""
        return self.placeholders

    def prompt(self, messages: Sequence[dict[str, str]], *, score: bool = False) -> str:
        """Conversation to text, ready for the model's answer, with <image> expanded.

        Args:
            score: the answer is a score; in every vocabulary its first digit is then the very next token.
        """
        template = self.chat_template or self.tokenizer.chat_template
        text: str = self.tokenizer.apply_chat_template(
            list(messages),
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # Qwen3's switch: the answer is the very next token; other templates do not ask
        )
        text = text.replace(IMAGE_TOKEN, self.placeholders)
        return text + number_prefix(self.tokenizer) if score else text

    def answer_ids(self, answer: str) -> list[int]:
        """Tokens of an answer as they follow its prompt, which says `score` where the answer is one.

        Answers are data: a special token's name in one stays plain text.
        """
        ids: list[int] = self.tokenizer(answer, split_special_tokens=True, add_special_tokens=False).input_ids
        return ids[1:] if is_score(answer) and number_prefix(self.tokenizer) else ids


def is_score(answer: str) -> bool:
    """Whether an answer is a score as calm writes it, "6.5." (`calm.instructions.format_score`)."""
    return re.fullmatch(r"\d+\.\d\.", answer) is not None


def number_prefix(tokenizer: PreTrainedTokenizerBase) -> str:
    """What stands between a prompt and the first digit: a space, where the vocabulary has it as a token of its own.

    Llama's writes " 6.5." as a space, 6, point, 5, point, but " The" as one token. The readouts look at the token after
    the prompt, so the space has to belong to the prompt of a score, and to the answer of anything else.

    Raises:
        ValueError: the vocabulary writes 6.5. otherwise than digit by digit, so no digit could be read.
    """
    digit = tokenizer.convert_tokens_to_ids("6")
    ids = tokenizer("6.5.", add_special_tokens=False).input_ids
    if ids[0] == digit:
        return ""
    if ids[1:2] == [digit] and not tokenizer.decode(ids[:1]).strip():
        return " "
    raise ValueError(
        f"parts.language: its vocabulary writes 6.5. as {tokenizer.convert_ids_to_tokens(ids)}: scores are read digit "
        "by digit, so name a model that writes them so (Llama 1 and 2, Vicuna, SmolLM2)"
    )


def add_placeholders(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[int]:
    """Give a tokenizer the placeholder tokens, at ids outside the language model's vocabulary.

    An embedding may have more rows than the tokenizer has tokens (Qwen3: 267 more): those get names that nobody says.

    Raises:
        ValueError: the tokenizer has tokens of these names already.
    """
    unused = [f"<unused{row}>" for row in range(len(tokenizer), vocab_size)]
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [*unused, *PLACEHOLDERS, IMAGE_TOKEN]}, replace_extra_special_tokens=False
    )
    ids: list[int] = tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))
    if min(ids) < vocab_size:
        raise ValueError(
            f"placeholder ids {ids} lie inside a vocabulary of {vocab_size}: its tokenizer has such tokens"
        )
    return ids


def byte_pixels(image: Image.Image) -> torch.Tensor:
    """A photograph as (3, H, W) bytes."""
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)


def normalise(images: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Unit pixels (B, 3, H, W) to what the encoder expects (B, 3, S, S); agrees with `CalmImageProcessor`."""
    size = (preprocessing.size, preprocessing.size)
    if images.shape[-2:] != size:
        images = torch.nn.functional.interpolate(images, size, mode=preprocessing.resampling, antialias=True)
        images = images.clamp(0, 1)
    mean = torch.tensor(preprocessing.mean).view(3, 1, 1)
    std = torch.tensor(preprocessing.std).view(3, 1, 1)
    return (images - mean) / std
