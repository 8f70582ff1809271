"""Sections `runtime`, `parts`, `mfam` and `finetune.tuning` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from calm.model import ContentSource
from calm.settings import NonNegativeInt, PositiveInt, Section, Share

VisualPart = Literal["low", "middle", "high", "thematic"]


class Runtime(Section):
    """Where and in which number format models run."""

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    keep_features: bool = True


class Parts(Section):
    """Names of the pretrained parts: entries of `calm.model.parts`, or hub names."""

    vision: str
    language: str
    text: str


class Thematic(Section):
    """The fully connected branch of the MFAM."""

    grid: NonNegativeInt
    content: list[ContentSource]


class Words(Section):
    """What the Q-formers recognise, told to the language model in its own words. 0 states tell it nothing."""

    states: NonNegativeInt  # told of one photograph, at most
    tokens: PositiveInt  # of one state's words
    probability: Annotated[float, Field(gt=0, lt=1)]  # of the likeliest, from which on it is told, and to be undone
    further: Annotated[float, Field(gt=0, lt=1)]  # of others beside it


class Levels(Section):
    """Indices into the visual encoder's hidden states, for each level; negative ones count from the end."""

    low: list[int]
    middle: list[int]
    high: list[int]


class MFAMParams(Section):
    """Inputs and size of the multi-scale feature alignment module."""

    levels: Levels
    grid: NonNegativeInt

    queries: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    cross_attention_every: PositiveInt
    thematic: Thematic
    words: Words
    score_width: NonNegativeInt
    score_dropout: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _heads_divide_width(self) -> MFAMParams:
        if self.width % self.heads:
            raise ValueError(f"mfam.width ({self.width}) is not a multiple of mfam.heads ({self.heads})")
        if self.cross_attention_every > self.layers:
            raise ValueError(
                f"mfam.cross_attention_every ({self.cross_attention_every}) has no effect beyond the first layer "
                f"with mfam.layers = {self.layers}"
            )
        return self


class LoRATuning(Section):
    """Low-rank adapters on linear layers of the language model."""

    kind: Literal["lora"]
    layers: Literal["all", "attention"]  # all but the head; or those of attention alone, which cost half of the time
    r: PositiveInt
    alpha: PositiveInt
    dropout: Share


class FullTuning(Section):
    """All weights of the language model."""

    kind: Literal["full"]
