"""Sections `data` and `instructions` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from calm.settings import NonNegative, PositiveInt, Section, Share


class ImageParams(Section):
    """How photographs are stored when prepared."""

    max_side: Annotated[int, Field(ge=32)]
    max_pixels: PositiveInt
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]


class RaterSplitParams(Section):
    """Which raters are held out where none are by publication, and what is drawn of each held-out one."""

    test_share: Share
    shots: Annotated[list[PositiveInt], Field(min_length=1)]
    draws: PositiveInt
    least_queries: PositiveInt


class SplitParams(Section):
    """Rules for datasets without an official split."""

    test_share: Share
    raters: RaterSplitParams


class LeakageParams(Section):
    """When two photographs count as one, and two texts."""

    phash_distance: Annotated[int, Field(ge=0, le=32)]
    correlation: Annotated[float, Field(gt=0, le=1)]
    caption_words: PositiveInt


class Roles(Section):
    """Which datasets feed which use."""

    unlabelled: list[str]
    generic: list[str]
    comments: list[str]
    scores: list[str]
    raters: list[str]


class DataParams(Section):
    """Datasets and what is done to their photographs. Each dataset's settings are checked by its own source."""

    datasets: dict[str, dict[str, Any]]
    roles: Roles
    well_taken: Annotated[float, Field(gt=0, le=1)]
    image: ImageParams
    split: SplitParams
    leakage: LeakageParams

    @model_validator(mode="after")
    def _datasets_and_roles_agree(self) -> DataParams:
        used: set[str] = set()
        for role, names in self.roles.model_dump().items():
            used.update(names)
            for name in names:
                if name not in self.datasets:
                    raise ValueError(f"data.roles.{role} names '{name}', which data.datasets does not have")
        for name in self.datasets:
            if name not in used:
                raise ValueError(f"data.datasets.{name} has no effect: no entry of data.roles names it")
        return self


class Spoilt(Section):
    """Training scores of pictures that no rater was shown (`calm.attributes.edits`), set by rule."""

    share: Share  # of the training scores that get such a twin
    points: NonNegative  # that a ruined photograph lies below its own score, on 1..10


class InstructionParams(Section):
    """How rated and commented photographs become prompts and answers."""

    paraphrases: PositiveInt
    comments_per_item: PositiveInt
    score_share_of_comments: Share
    verdicts: Share
    spoilt: Spoilt
