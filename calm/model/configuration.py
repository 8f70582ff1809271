"""Configurations: CALM, and the visual encoder that transformers does not have."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

from transformers import AutoConfig, CLIPVisionConfig, LlamaConfig, PreTrainedConfig

from calm.attributes import LEVELS
from calm.model import LEVEL_SOURCES, WHOLE_SOURCES

THEMATIC = "thematic"
# In the order that the language model reads them (paper), the words last.
PLACEHOLDERS = ("<low>", "<middle>", "<high>", "<thematic>", "<words>")
IMAGE_TOKEN = "<image>"  # what prompts hold; the processor expands it into placeholders

# kernel, stride, expansion, channels in, channels out of the 16 blocks
BLOCKS = (
    (3, 1, 1, 32, 16),
    *((3, 2, 6, 16, 24), (3, 1, 6, 24, 24)),
    *((5, 2, 6, 24, 40), (5, 1, 6, 40, 40)),
    *((3, 2, 6, 40, 80), (3, 1, 6, 80, 80), (3, 1, 6, 80, 80)),
    *((5, 1, 6, 80, 112), (5, 1, 6, 112, 112), (5, 1, 6, 112, 112)),
    *((5, 2, 6, 112, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192)),
    (3, 1, 6, 192, 320),
)
HEAD_CHANNELS = 1280


class EfficientNetLiteConfig(PreTrainedConfig):
    """Configuration; `width_divisor` shrinks every channel count, for tests."""

    model_type = "efficientnet_lite"

    num_labels: int = 1000
    image_size: int = 224
    width_divisor: int = 1

    def feature_maps(self, image_size: int) -> list[tuple[int, int]]:
        """(channels, side in positions) of every hidden state for a square image of `image_size` pixels."""
        side = -(-image_size // 2)  # after the stem
        shapes = []
        for _, stride, _, _, channels in BLOCKS:
            side = -(-side // stride)
            shapes.append((channels // self.width_divisor, side))
        return [*shapes, (HEAD_CHANNELS // self.width_divisor, side)]


class CalmConfig(PreTrainedConfig):
    """Everything that shapes a CALM checkpoint.

    `levels` maps low, middle and high to indices into the encoder's hidden states. Placeholder tokens have ids at and
    above `text_config.vocab_size`: they are replaced by visual tokens before the language model's embedding is asked,
    so that model stays untouched.
    """

    model_type = "calm"
    sub_configs: ClassVar = {"vision_config": AutoConfig, "text_config": AutoConfig}

    vision_config: Any = None  # a configuration, or what one says as a dict
    text_config: Any = None
    image_size: int = 336
    max_side: int = 0  # pixels that photographs are scaled down to first, as those were that it learnt from; 0: unknown
    levels: dict[str, list[int]] = field(default_factory=lambda: {"low": [8], "middle": [16], "high": [-2]})
    grid: int = 0
    queries: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    cross_attention_every: int = 2
    thematic_grid: int = 0
    thematic_content: list[str] = field(default_factory=list)  # sources, of `calm.model`
    reads: list[str] = field(default_factory=lambda: [*LEVELS, THEMATIC])  # visual tokens; the others are zeros
    contrast_width: int = 256
    contrast_temperature: float = 0.07
    text_width: int = 384  # of the sentence encoder's embeddings
    attribute_states: list[list[str]] = field(default_factory=list)  # [level, attribute, state] of every prototype row
    unpraised: list[str] = field(default_factory=list)  # attributes that nobody is told of while they are unchanged
    # Of every row of `attribute_states`, that of the mirrored photograph's state: recognition looks at both. Empty: a
    # checkpoint of an earlier calm, which looks at the photograph alone.
    mirrored_rows: list[int] = field(default_factory=list)
    recognition: dict[str, Any] = field(default_factory=dict)  # `calm.model.heads.Calibration`, once learnt
    told_states: int = 0  # states that the language model is told of in its own words, at most; 0: none
    told_probability: float = 0.5  # of the likeliest state, from which on it is told, and suggested to be undone
    told_further: float = 0.5  # of others beside it
    told_length: int = 0  # tokens of one state's words
    placeholder_token_ids: list[int] = field(default_factory=list)
    digit_token_ids: list[int] = field(default_factory=list)  # of "0" to "9"
    score_width: int = 0  # hidden units of the score head's visual part; 0: it reads the language model alone
    score_dropout: float = 0.0  # of that part, while it is trained alone
    # Publics whose mean scores were learnt, the one to be asked by default first: `name`, `origin` of their scores, and
    # `steps`, the 0th, 1st, ..., 100th percentile of those learnt from. Empty: there is one, without a name.
    publics: list[dict[str, Any]] = field(default_factory=list)
    verdicts: bool = False  # comments begin with one that follows the first public's score, where they name no flaw
    score_mean: bool = False  # of its parts is the score; of a checkpoint by an earlier calm it was their sum
    score_visual: float = 0.5  # what the visual part counts in that mean
    score_mirrored: bool = False  # and whether it looks at the mirrored photograph too, which costs the encoder's time
    score_min: float = 1.0
    score_max: float = 10.0
    provenance: dict[str, Any] = field(default_factory=dict)
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _sub_config(self.vision_config, CLIPVisionConfig)
        self.text_config = _sub_config(self.text_config, LlamaConfig)
        vocabulary = self.text_config.vocab_size
        self.placeholder_token_ids = self.placeholder_token_ids or [vocabulary + i for i in range(len(PLACEHOLDERS))]
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
        if sorted(self.levels) != sorted(LEVELS):
            raise ValueError(f"levels: expected {LEVELS}, found {tuple(self.levels)}")
        if not isinstance(self.thematic_content, list):
            raise ValueError(
                f"thematic_content: expected a list of sources, found {self.thematic_content!r}: the checkpoint is of "
                "an earlier calm; run `dvc repro`"
            )
        if unknown := set(self.thematic_content) - {*LEVEL_SOURCES, *WHOLE_SOURCES}:
            raise ValueError(f"thematic_content: unknown sources {sorted(unknown)}")
        if self.maps is None and "words" in self.thematic_content:
            raise ValueError("thematic_content: this encoder tells no classes: leave out words")
        super().__post_init__(**kwargs)

    @property
    def vision_tokens(self) -> int:
        """Tokens that one photograph takes in the prompt."""
        return len(LEVELS) * self.queries + self.thematic_tokens + self.told_tokens

    @property
    def told_tokens(self) -> int:
        """Tokens of the language model's own words, which follow the thematic ones."""
        return self.told_states * self.told_length

    @property
    def places(self) -> int:
        """Thematic tokens that stand for places of the photograph."""
        side = self.thematic_grid or self.grid or self.side
        assert side is not None
        return side**2

    @property
    def side(self) -> int | None:
        """Places along a side of a transformer's square raster; None for a convolutional encoder, whose maps differ."""
        return int(self.image_size // self.vision_config.patch_size) if self.maps is None else None

    @property
    def thematic_tokens(self) -> int:
        """Tokens of the fully connected branch: those of places, and one for every source of content."""
        return self.places + len(self.content_widths)

    @property
    def level_widths(self) -> dict[str, int]:
        """Channels of each level's tokens."""
        widths = {}
        for level in LEVELS:  # a configuration that was read has them in another order
            indices = self.levels[level]
            if self.maps is not None:
                shapes = [self.maps[index] for index in indices]
            else:
                shapes = [(self.vision_config.hidden_size, self.side or 0) for _ in indices]
            widths[level] = sum(channels * (2 if self.grid and side > self.grid else 1) for channels, side in shapes)
        return widths

    def public(self, name: str) -> int:
        """Place of a public among those learnt; 0 for a dataset that is none, whose rows have no score."""
        names = [public["name"] for public in self.publics]
        return names.index(name) if name in names else 0

    @property
    def maps(self) -> list[tuple[int, int]] | None:
        """(channels, side) of each hidden state of a convolutional encoder; None for a transformer."""
        return self.vision_config.feature_maps(self.image_size) if hasattr(self.vision_config, "feature_maps") else None

    @property
    def content_widths(self) -> dict[str, int]:
        """Channels of every source of content.

        A level's mean and standard deviation over its places; the encoder's summary of the photograph (a transformer's
        is its class token) and the deviation over the places of its last features; its classes in words, and what
        the language model says of them.
        """
        summary = self.vision_config.hidden_size if self.maps is None else self.maps[-1][0]
        whole = {"summary": summary, "summary_deviation": summary, "words": self.text_width}
        levels = {source: self.level_widths[level] for source, (level, _) in LEVEL_SOURCES.items()}
        return {source: (levels | whole)[source] for source in self.thematic_content}


def _sub_config(value: dict | PreTrainedConfig | None, default: type[PreTrainedConfig]) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        return value
    if value is None:
        return default()
    return AutoConfig.for_model(**value)
