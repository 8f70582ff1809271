"""Typed, frozen parameters: what params.yaml may say, checked before anything runs.

An unknown key, a value of the wrong type or range, and a key that could have no effect beside the others are all
`ParamsError`s that name the key by its dotted path. Settings that exist only in one variant (LoRA's rank, the texts
API's model) belong to a tagged union, so naming them beside another variant is an error and not a silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PARAMS_FILE = Path("params.yaml")

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Threads = Annotated[int, Field(ge=1, le=1024)]
VisualPart = Literal["low", "middle", "high", "thematic"]
LevelSource = Literal["low_mean", "low_deviation", "middle_mean", "middle_deviation", "high_mean", "high_deviation"]
EncoderSource = Literal["summary", "summary_deviation"]  # of the encoder's end
ClassSource = Literal["words", "connotations"]  # of the classes that it recognises, by their probabilities
ContentSource = LevelSource | EncoderSource | ClassSource
Model = TypeVar("Model", bound=BaseModel)

TRAINING_RUNS = (
    ("pretrain", "attributes"),
    ("pretrain", "alignment"),
    ("finetune", "comments"),
    ("finetune", "scores"),
)


class ParamsError(ValueError):
    """Parameters that cannot be used; the message names every offending key."""


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Runtime(Section):
    """Where and in which number format models run."""

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    keep_features: bool = True
    disk_features: bool = False


class StageThreads(Section):
    """Threads of each stage: part of the result, since sums of floats depend on them."""

    fetch: Threads
    prepare: Threads
    split: Threads
    filter_leakage: Threads
    generate_texts: Threads
    build_instructions: Threads
    pretrain: Threads
    finetune: Threads
    evaluate: Threads
    ablate: Threads
    cross_validate: Threads
    report: Threads


class Parts(Section):
    """Names of the pretrained parts: keys of `calm.model.pretrained`, or hub names."""

    vision: str
    language: str
    text: str


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


class GrammarWriter(Section):
    """Guidance texts from the offline, seeded grammar."""

    provider: Literal["grammar"]


class ChatDelivery(Section):
    """Chat completions, several at a time."""

    kind: Literal["chat"] = "chat"
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16


class BatchDelivery(Section):
    """The Batch API: half the price, answers within a day. A run that is stopped collects its batch next time."""

    kind: Literal["batch"]
    poll_seconds: Positive = 60.0
    wait_hours: Positive = 26.0  # in one run


class TokenPrice(Section):
    """US dollars per million tokens."""

    input: NonNegative
    output: NonNegative


class TextChecks(Section):
    """What a written text must not be; the rules are listed in docs/texts.md."""

    max_words: PositiveInt = 40
    duplicate: Annotated[float, Field(gt=0, le=1)] = 0.95  # cosine from which on two texts of a state are one
    margin: NonNegative = 0.05  # by how much the catalogue's words of another state may be nearer


class OpenAIWriter(Section):
    """Texts from an OpenAI-compatible endpoint; the key comes from OPENAI_API_KEY alone."""

    provider: Literal["openai"]
    model: str = "gpt-3.5-turbo"
    base_url: str = "https://api.openai.com/v1"
    temperature: NonNegative = 1.0
    seed: NonNegativeInt = 17  # of the requests: apart from the run's seed, or each new run would have to pay again
    texts_per_request: PositiveInt = 10
    max_tokens: PositiveInt = 800  # of one answer
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # what the server calls it
    answer_format: Literal["json_object", "json_schema", "text"] = "json_object"
    delivery: Annotated[ChatDelivery | BatchDelivery, Field(discriminator="kind")] = ChatDelivery()
    timeout_seconds: Positive = 60.0
    retries: NonNegativeInt = 6  # of a request that fails on its way
    rounds: PositiveInt = 4  # of asking for what is still missing or was rejected
    checks: TextChecks = TextChecks()
    price: TokenPrice | None = None  # null = the dated table in calm/writing/prices.yaml
    budget_usd: NonNegative = 5.0  # for everything that the endpoint's ledger holds

    @model_validator(mode="after")
    def _address_is_public(self) -> OpenAIWriter:
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("attributes.texts.writer.base_url must be an address such as http://localhost:8000/v1")
        if address.username or address.password or address.query or address.fragment:
            raise ValueError(
                "attributes.texts.writer.base_url holds more than an address; keys come from OPENAI_API_KEY alone"
            )
        return self


class TextGate(Section):
    """When the guidance texts are good enough to train on."""

    accuracy: Share  # least share of texts that are nearest to their own state among those of their level


class TextParams(Section):
    """How many guidance texts per attribute state, and who writes them."""

    per_state: PositiveInt
    gate: TextGate
    writer: Annotated[GrammarWriter | OpenAIWriter, Field(discriminator="provider")]


class AttributeParams(Section):
    """The guidance of pre-training."""

    texts: TextParams


class InstructionParams(Section):
    """How rated and commented photographs become prompts and answers."""

    paraphrases: PositiveInt
    comments_per_item: PositiveInt
    score_share_of_comments: Share
    score_weight_of_comments: Positive


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


class Optimisation(Section):
    """One run of the training loop. Adam, linear warm-up, cosine annealing (paper)."""

    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: Positive
    warmup: Share
    weight_decay: NonNegative
    max_grad_norm: Positive
    checkpoint_every: PositiveInt


class Contrastive(Section):
    """Multi-positive contrast between a level's pooled queries and the embedded guidance texts."""

    weight: NonNegative
    temperature: Positive
    width: PositiveInt
    texts: PositiveInt
    every: NonNegative  # weight of telling all attributes of a level in every view, beside the drawn one


class Calibration(Section):
    """Photographs that self-supervision does not train on, from which it learns how sure its answers may be."""

    share: Annotated[float, Field(gt=0, lt=1)]
    views: PositiveInt  # of each


class LanguageLoss(Section):
    """Language-model loss of the guidance texts through the frozen language model."""

    weight: NonNegative
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


class FrozenTuning(Section):
    """The language model stays as it is."""

    kind: Literal["frozen"]


class Regression(Section):
    """Loss of the score head, beside the words'. Never 0: the readout would be that of a head that learnt nothing."""

    weight: Positive


class EditGap(Section):
    """A known-harmful edit lowers a photograph's own score by `gap` standard deviations of the training scores."""

    weight: NonNegative
    gap: NonNegative
    pairs: PositiveInt
    views: PositiveInt
    harm: Annotated[float, Field(gt=0, le=1)]


class VisualScores(Optimisation):
    """S begins without the language model: MFAM and the score head's visual part. 0 steps leave it out."""

    steps: NonNegativeInt
    edit_gap: EditGap


class FinetuneScores(Optimisation):
    """S: image-score pairs."""

    spread: NonNegative
    regression: Regression
    visual: VisualScores


class FinetuneParams(Section):
    """The two processes of fine-tuning: C, then S."""

    tuning: Annotated[LoRATuning | FullTuning | FrozenTuning, Field(discriminator="kind")]
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


class Bootstrap(Section):
    """Intervals of the quality figures."""

    samples: PositiveInt
    level: Annotated[float, Field(gt=0, lt=1)]


class TaskSettings(Section):
    """Settings under evaluation.tasks.NAME. A task with settings of its own extends this; unknown keys are errors."""

    model: str  # folder of the model that the task judges


class EvaluationParams(Section):
    """What is measured, on which model. Each task's settings are checked by its own file."""

    tasks: dict[str, dict[str, Any]]
    batch_size: PositiveInt
    bootstrap: Bootstrap


class Ablation(Section):
    """The recipe of fine-tuning from another start."""

    start: str


class Recipe(Section):
    """One way of learning scores, beside others on the same folds."""

    # full: the MFAM of both pre-training runs. contrastive, language: its Q-formers are trained again with that loss of
    # the self-supervision alone. none: a fresh MFAM of the fold's seed
    self_supervision: Literal["none", "full", "contrastive", "language"]
    reads: Annotated[list[VisualPart], Field(min_length=1)]  # the MFAM's other tokens are zeros
    omits: list[ContentSource] = Field(default_factory=list)  # of mfam.thematic.content: zeros as well
    edit_gap: NonNegative  # weight, in place of finetune.scores.visual.edit_gap.weight
    steps: NonNegativeInt  # with the language model, after the visual phase; 0: the visual part's score alone


class CrossValidation(Section):
    """Every rated photograph scored by a model that was not trained on it; differences are from the first recipe."""

    photographs: Literal["train", "all"]  # train: of the training list alone, to choose settings by
    by: Literal["photograph", "group"]  # what a fold never shares with another
    folds: Annotated[int, Field(ge=2)]
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)]
    recipes: Annotated[dict[str, Recipe], Field(min_length=1)]


class ReportParams(Section):
    """What the page shows."""

    examples: PositiveInt
    max_new_tokens: PositiveInt


class Params(Section):
    """Everything params.yaml says."""

    profile: str
    seed: NonNegativeInt
    runtime: Runtime
    threads: StageThreads
    parts: Parts
    data: DataParams
    attributes: AttributeParams
    instructions: InstructionParams
    mfam: MFAMParams
    pretrain: PretrainParams
    finetune: FinetuneParams
    strategy: Strategy
    evaluation: EvaluationParams
    ablations: dict[str, Ablation]
    cross_validations: dict[str, CrossValidation]
    report: ReportParams

    @model_validator(mode="after")
    def _cross_validations_have_a_visual_phase(self) -> Params:
        if self.cross_validations and not self.finetune.scores.visual.steps:
            raise ValueError("cross_validations train the visual part of the score: finetune.scores.visual.steps is 0")
        return self

    @model_validator(mode="after")
    def _recipes_omit_what_is_there(self) -> Params:
        content = self.mfam.thematic.content
        for name, settings in self.cross_validations.items():
            for recipe, how in settings.recipes.items():
                if missing := [source for source in how.omits if source not in content]:
                    raise ValueError(
                        f"cross_validations.{name}.recipes.{recipe}.omits {missing[0]}, which is not in "
                        f"mfam.thematic.content {content}"
                    )
        return self

    @model_validator(mode="after")
    def _visual_scores_have_a_head(self) -> Params:
        width, steps = self.mfam.score_width, self.finetune.scores.visual.steps
        if steps and not width:
            raise ValueError(
                f"finetune.scores.visual.steps ({steps}) would train a part of the score head that "
                "mfam.score_width = 0 leaves out: set it to 0 too"
            )
        return self

    @model_validator(mode="after")
    def _workers_have_something_to_read(self) -> Params:
        if self.strategy.workers and self.runtime.keep_features and self.pretrain.attributes.views:
            raise ValueError(
                "strategy.workers has no effect: runtime.keep_features and pretrain.attributes.views keep all in memory"
            )
        return self

    @model_validator(mode="after")
    def _processes_share_every_batch(self) -> Params:
        for section, run in TRAINING_RUNS:
            batch = getattr(getattr(self, section), run).batch_size
            if batch % self.strategy.world:
                raise ValueError(
                    f"{section}.{run}.batch_size ({batch}) cannot be shared evenly by the {self.strategy.world} "
                    "processes of strategy.nodes x strategy.processes"
                )
        return self


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a parameter file.

    Raises:
        ParamsError: the file is missing, is not YAML, or says something that `Params` refuses.
    """
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist: run this in a checkout of calm, or name one with -C DIR") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    return parse_params(raw, str(path))


def parse_params(raw: object, where: str) -> Params:
    """Check parameters that were already read; `where` names their origin in errors."""
    if not isinstance(raw, Mapping):
        raise ParamsError(f"{where}: expected a mapping of sections, found {type(raw).__name__}")
    return checked(Params, raw, where)


def checked(model: type[Model], raw: object, where: str, prefix: str = "") -> Model:
    """Validate `raw` against `model`; all problems in one `ParamsError`, each with its dotted key after `prefix`."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(problem, prefix) for problem in error.errors()]
        raise ParamsError(f"{where}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _explain(problem: Mapping[str, Any], prefix: str) -> str:
    """One line for one of pydantic's error records."""
    tags = {"grammar", "openai", "chat", "batch", "lora", "full", "frozen"}
    location = [str(part) for part in problem["loc"]]
    key = ".".join(part for i, part in enumerate(location) if i == 0 or part not in tags)
    key = prefix + key if key else prefix.rstrip(".") or "(whole file)"
    match problem["type"]:
        case "extra_forbidden":
            variant = [part for part in location if part in tags]
            beside = f" (it would have no effect with '{variant[0]}')" if variant else ""
            return f"{key}: unknown key{beside}"
        case "missing":
            return f"{key}: missing"
        case "value_error":
            return str(problem["ctx"]["error"])
        case _:
            return f"{key}: {problem['msg']}, got {problem['input']!r}"
