"""What a visual encoder expects of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import PILImageResampling

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
