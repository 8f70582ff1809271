"""Sections `pretrain`, `finetune`, `strategy`, `ablations` and `cross_validations` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from calm.model.settings import FullTuning, LoRATuning, VisualPart
from calm.settings import NonNegative, NonNegativeInt, Positive, PositiveInt, Section, Share

TRAINING_RUNS = (
    ("pretrain", "attributes"),
    ("pretrain", "alignment"),
    ("finetune", "comments"),
    ("finetune", "scores"),
)


class Optimisation(Section):
    """One run of the training loop. Adam, linear warm-up, cosine annealing (paper)."""

    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: Positive
    warmup: Share
    weight_decay: NonNegative
    max_grad_norm: Positive
    checkpoint_every: PositiveInt


class LossSettings(Section):
    """A loss of the self-supervision; one with settings of its own extends this. A weight of 0 leaves it out."""

    weight: NonNegative


class Contrastive(LossSettings):
    """Multi-positive contrast between a level's pooled queries and the embedded guidance texts."""

    temperature: Positive
    width: PositiveInt
    texts: PositiveInt
    every: NonNegative  # weight of telling all attributes of a level in every view, beside the drawn one


class Calibration(Section):
    """Photographs that self-supervision does not train on, from which it learns how sure its answers may be."""

    share: Annotated[float, Field(gt=0, lt=1)]
    views: PositiveInt  # of each


class LanguageLoss(LossSettings):
    """Language-model loss of the guidance texts through the frozen language model."""

    samples: NonNegativeInt

    @model_validator(mode="after")
    def _effective(self) -> LanguageLoss:
        if (self.weight == 0) != (self.samples == 0):
            raise ValueError(
                f"pretrain.attributes.language: weight = {self.weight} and samples = {self.samples}: "
                "one of them has no effect; set both to 0 or neither"
            )
        return self


class PretrainAttributes(Optimisation):
    """U: text-guided self-supervision of the Q-formers."""

    views: NonNegativeInt
    contrastive: Contrastive
    language: LanguageLoss
    losses: dict[str, dict[str, Any]] = Field(default_factory=dict)  # further files of calm/training/losses
    calibration: Calibration

    @model_validator(mode="after")
    def _some_loss(self) -> PretrainAttributes:
        if self.contrastive.weight == 0 and self.language.weight == 0:
            raise ValueError("pretrain.attributes: contrastive.weight and language.weight are both 0: nothing to learn")
        return self


class PretrainParams(Section):
    """The two pre-training runs: U and G."""

    attributes: PretrainAttributes
    alignment: Optimisation


class Regression(Section):
    """Loss of the score head, beside the words'. Never 0: the readout would be that of a head that learnt nothing."""

    weight: Positive
    visual: Share  # what the visual part counts in the score, beside the language model's
    mirrored: bool  # the visual part looks at the mirrored photograph too, once trained


class VisualScores(Optimisation):
    """S begins without the language model: MFAM and the score head's visual part. 0 steps leave it out."""

    steps: NonNegativeInt


class FinetuneScores(Optimisation):
    """S: image-score pairs."""

    spread: NonNegative
    decimal_spread: NonNegative
    balance: Share  # of publics of unlike size: `calm.training.scores.balanced`
    regression: Regression
    visual: VisualScores

    @model_validator(mode="after")
    def _decimals_follow_taught_digits(self) -> FinetuneScores:
        if self.decimal_spread and not self.spread:
            raise ValueError("finetune.scores.decimal_spread has no effect where spread is 0: set it to 0 too")
        return self


class FinetuneParams(Section):
    """The two processes of fine-tuning: C, then S."""

    tuning: Annotated[LoRATuning | FullTuning, Field(discriminator="kind")]
    q_formers: Literal["trained", "frozen"]  # frozen: what self-supervision has taught them to recognise stays
    comments: Optimisation
    scores: FinetuneScores


class Strategy(Section):
    """How many processes train, and who of them holds weights, gradients and optimiser state."""

    kind: Literal["single", "ddp", "fsdp2", "deepspeed"]
    zero: Literal[0, 2, 3] = 0
    launcher: Literal["none", "torchrun", "deepspeed", "srun"] = "none"
    nodes: PositiveInt = 1
    processes: PositiveInt = 1
    micro_batch: NonNegativeInt = 0
    workers: NonNegativeInt = 0
    gradient_checkpointing: bool = False

    @property
    def world(self) -> int:
        """Processes on all nodes together."""
        return self.nodes * self.processes

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> Strategy:
        if self.kind == "single" and (self.launcher, self.world) != ("none", 1):
            raise ValueError(
                "strategy: launcher, nodes and processes have no effect with kind 'single': set them to none, 1 and 1"
            )
        if self.kind != "single" and self.launcher == "none":
            raise ValueError(f"strategy.launcher: kind '{self.kind}' needs one: torchrun, deepspeed or srun")
        if (self.kind == "deepspeed") != (self.zero > 0):
            raise ValueError(f"strategy.zero: {self.zero} with kind '{self.kind}': 2 or 3 for deepspeed, 0 for others")
        if (self.nodes > 1) != (self.launcher == "srun"):
            raise ValueError(
                f"strategy.launcher: {self.launcher} with {self.nodes} nodes: srun reaches several, the others one"
            )
        return self


class Ablation(Section):
    """The recipe of fine-tuning with one of its parts left out, or done another way."""

    start: str  # a run of pre-training, or models/pretrain: both
    change: dict[str, Any] = Field(default_factory=dict)  # other values of these keys of params.yaml, dotted
    tasks: Annotated[list[str], Field(min_length=1)]  # evaluation tasks that judge it beside the full recipe


class Recipe(Section):
    """One way of learning scores, beside others on the same folds."""

    # full: the MFAM of both pre-training runs. none: a fresh one of the fold's seed
    self_supervision: Literal["none", "full"]
    reads: Annotated[list[VisualPart], Field(min_length=1)]  # the MFAM's other tokens are zeros
    steps: NonNegativeInt  # with the language model, after the visual phase; 0: the visual part's score alone


class CrossValidation(Section):
    """Every rated photograph scored by a model that was not trained on it; differences are from the first recipe."""

    photographs: Literal["train", "all"]  # train: of the training list alone, to choose settings by
    by: Literal["photograph", "group"]  # what a fold never shares with another
    folds: Annotated[int, Field(ge=2)]
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)]
    recipes: Annotated[dict[str, Recipe], Field(min_length=1)]
