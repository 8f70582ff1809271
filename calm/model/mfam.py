"""The multi-scale feature alignment module (paper): one fully connected layer and three Q-formers.

The fully connected layer turns the encoder's high-level tokens into H_thematic; a Q-former each turns low-, middle- and
high-level features into H_low, H_middle and H_high by its own query tokens. H_thematic goes on with a token for every
source of content that the configuration names: a level's mean or deviation over its places, the encoder's summary of
the photograph, the classes that it recognises, as words or by what the language model says of them. All four are as
wide as the language model's embeddings. A contrastive head, used by the self-supervision and to name attributes,
compares a level's pooled queries with embedded guidance texts.

Where the configuration asks for it, the attribute states that the Q-formers recognise follow in the language model's
own words ("visible noise; a clockwise tilt;"), as rows of its embedding: a small language model reads words where it
cannot read query tokens (chosen here: docs/paper.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isqrt, log

import torch
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from calm.attributes import LEVELS
from calm.model import LEVEL_SOURCES, WHOLE_SOURCES
from calm.model.attention import attending
from calm.model.configuration import THEMATIC, CalmConfig
from calm.model.heads import Recogniser

HiddenStates = Sequence[torch.Tensor]
FEATURES = (*LEVELS, "content")
SHARPNESS = 0.5  # of the classes' probabilities: the likeliest alone would say too little of a photograph


@dataclass(frozen=True)
class LevelTokens:
    """Encoder features by level, (B, N_level, C_level) each, and what it says of the whole photograph, (B, C)."""

    low: torch.Tensor
    middle: torch.Tensor
    high: torch.Tensor
    content: torch.Tensor  # `MFAM.whole`
    mirrored: LevelTokens | None = field(default=None, kw_only=True)  # of the mirrored photographs, if looked at too

    def __getitem__(self, name: str) -> torch.Tensor:
        return getattr(self, name)

    def rows(self, index: torch.Tensor | slice) -> LevelTokens:
        """The same features for some of the photographs."""
        mirrored = None if self.mirrored is None else self.mirrored.rows(index)
        return LevelTokens(*(self[name][index] for name in FEATURES), mirrored=mirrored)

    @staticmethod
    def concatenate(parts: Sequence[LevelTokens]) -> LevelTokens:
        """One batch out of several."""
        mirrored = [part.mirrored for part in parts if part.mirrored is not None]
        whole = LevelTokens.concatenate(mirrored) if mirrored else None
        return LevelTokens(*(torch.cat([part[name] for part in parts]) for name in FEATURES), mirrored=whole)


def level_tokens(
    hidden_states: HiddenStates, levels: Mapping[str, Sequence[int]], grid: int, side: int | None = None
) -> dict[str, torch.Tensor]:
    """Pick each level's hidden states and bring them to tokens of one grid: (B, N_level, C_level) by level.

    Feature maps (B, C, h, w) and token sequences (B, N, C) are both taken; of these the last `side` x `side` stand for
    places, and what comes before them (class and register tokens) is dropped. With `grid` > 0
    every cell of a grid x grid raster gives its mean and, where it covers more than one position, its deviation: the
    deviation is what tells noise and blur. Raises ValueError if a level's states cannot share one set of positions.
    """
    tokens = {}
    for level in LEVELS:
        parts = [_cells(_as_map(hidden_states[index], side), grid) for index in levels[level]]
        if len({part.shape[1] for part in parts}) > 1:
            raise ValueError(f"mfam.levels.{level}: hidden states {levels[level]} differ in size: set mfam.grid")
        tokens[level] = torch.cat(parts, dim=-1)
    return tokens


def _as_map(state: torch.Tensor, side: int | None) -> torch.Tensor:
    """Tokens (B, N, C), those of a square raster last, to a map (B, C, side, side); maps stay."""
    if state.ndim == 4:
        return state
    assert side is not None
    return state[:, state.shape[1] - side * side :].transpose(1, 2).unflatten(2, (side, side))


def _pooled(tokens: torch.Tensor, statistic: str) -> torch.Tensor:
    """Mean or standard deviation over the places: (B, N, C) to (B, C) float32."""
    values = tokens.float()
    return values.mean(1) if statistic == "mean" else values.std(1, correction=0)


def _cells(maps: torch.Tensor, grid: int) -> torch.Tensor:
    if not grid or maps.shape[-1] == grid:
        return maps.flatten(2).transpose(1, 2)
    maps = maps.float()
    mean = nn.functional.adaptive_avg_pool2d(maps, grid)
    square = nn.functional.adaptive_avg_pool2d(maps.square(), grid)
    deviation = (square - mean.square()).clamp_min(1e-6).sqrt()
    return torch.cat([mean, deviation], dim=1).flatten(2).transpose(1, 2)


class LevelQFormer(nn.Module):
    """One level's queries, Q-former and projection to the language model's width."""

    def __init__(self, config: CalmConfig, encoder_width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(1, config.queries, config.width))
        nn.init.normal_(self.queries, std=0.5)  # the queries must differ, or they learn to be one
        # Without affine weights: features of raw convolutions differ in scale by orders of magnitude.
        self.norm = nn.LayerNorm(encoder_width, elementwise_affine=False)
        # Cells of a feature map do not say where they lie; a transformer's tokens do.
        self.positions = nn.Parameter(torch.zeros(1, config.grid**2, encoder_width)) if config.grid else None
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.width,
                cross_attention_frequency=config.cross_attention_every,
                encoder_hidden_size=encoder_width,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        )
        self.to_language = nn.Linear(config.width, config.text_config.hidden_size)
        self.to_contrast = nn.Linear(config.width, config.contrast_width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Encoder tokens (B, N, C) to query states (B, queries, width)."""
        queries = self.queries.expand(tokens.shape[0], -1, -1)
        output = self.qformer(query_embeds=queries, encoder_hidden_states=self._placed(tokens))
        states: torch.Tensor = output.last_hidden_state
        return states

    def _placed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Normalised tokens that know their place."""
        tokens = self.norm(tokens.to(self.queries.dtype))
        return tokens if self.positions is None else tokens + self.positions

    @torch.no_grad()
    def attention(self, tokens: torch.Tensor) -> torch.Tensor:
        """Where the queries looked: (B, N), mean over layers, heads and queries, sums to 1."""
        queries = self.queries.expand(tokens.shape[0], -1, -1)
        with attending(self.qformer, "eager"):  # the fused kernels do not give their weights
            output = self.qformer(
                query_embeds=queries, encoder_hidden_states=self._placed(tokens), output_attentions=True
            )
        maps = [weights.mean((1, 2)) for weights in output.cross_attentions if weights is not None]
        return torch.stack(maps).mean(0)


class MFAM(nn.Module):
    """Encoder features to the visual tokens that the language model reads."""

    prototypes: torch.Tensor
    content_mean: torch.Tensor
    content_deviation: torch.Tensor

    def __init__(self, config: CalmConfig) -> None:
        super().__init__()
        self.config = config
        widths, sources = config.level_widths, config.content_widths
        self.levels = nn.ModuleDict({level: LevelQFormer(config, widths[level]) for level in LEVELS})
        language_width = config.text_config.hidden_size
        self.thematic_norm = nn.LayerNorm(widths["high"], elementwise_affine=False)
        self.thematic = nn.Linear(widths["high"], language_width)
        # A layer for each source: in one for all, the widest would drown the others.
        self.content = nn.ModuleDict({name: nn.Linear(width, language_width) for name, width in sources.items()})
        self.register_buffer("content_mean", torch.zeros(sum(sources.values())))  # over photographs: `fit_content`
        self.register_buffer("content_deviation", torch.ones(sum(sources.values())))
        if "words" in sources:  # what each of the encoder's classes is called: `calm.model.build.assemble`
            self.register_buffer("class_words", torch.zeros(config.vision_config.num_labels, sources["words"]))
        self.text_to_contrast = nn.Linear(config.text_width, config.contrast_width)
        # A vector of one: FSDP2 does not share out scalars.
        self.temperature = nn.Parameter(torch.tensor([log(config.contrast_temperature)]))
        prototypes = torch.zeros(len(config.attribute_states), config.text_width)
        self.register_buffer("prototypes", prototypes)  # mean guidance embedding of every attribute state
        if config.told_tokens:  # the words of every state, then those for nothing: `calm.model.build.word_ids`
            words = torch.zeros(len(config.attribute_states) + 1, config.told_length, language_width)
            self.register_buffer("words", words)

    def level(self, name: str) -> LevelQFormer:
        """The Q-former of a level."""
        module = self.levels[name]
        assert isinstance(module, LevelQFormer)
        return module

    def forward(self, tokens: LevelTokens, told: Sequence[Sequence[int] | None] | None = None) -> torch.Tensor:
        """Visual tokens (B, N, D): <low> <middle> <high> <thematic>, as in the paper's figure, then words if any.

        Args:
            told: for each photograph rows of the attribute states to tell of, or None for what is recognised in it.
        """
        parts = [self._part(name, tokens) for name in (*LEVELS, THEMATIC)]
        if self.config.told_tokens:
            parts.append(self.worded(tokens, told).to(parts[0].dtype))
        return torch.cat(parts, dim=1)

    def worded(self, tokens: LevelTokens, told: Sequence[Sequence[int] | None] | None = None) -> torch.Tensor:
        """The words of what is told of each photograph, (B, told_tokens, D), right before what is asked about it."""
        found = self.nothing(tokens) if told is not None and None not in told else self.told(tokens)
        if told is not None:
            nothing = [len(self.config.attribute_states)] * self.config.told_states
            for row, known in zip(found, told, strict=True):
                if known is not None:
                    row.copy_(torch.tensor([*known, *nothing][: len(nothing)]))
        return self.get_buffer("words")[found.flip(1)].flatten(1, 2)

    def nothing(self, tokens: LevelTokens) -> torch.Tensor:
        """Rows (B, told_states) for which there are words but no state."""
        shape = len(tokens.high), self.config.told_states
        return torch.full(shape, len(self.config.attribute_states), device=tokens.high.device)

    @torch.no_grad()
    def told(self, tokens: LevelTokens) -> torch.Tensor:
        """Rows of the states to tell of (B, told_states), likeliest first (`calm.model.heads.Recogniser.told`)."""
        config = self.config
        if not config.recognition:  # nothing was learnt yet
            return self.nothing(tokens)
        wanted = config.told_states, config.told_probability, config.told_further
        return Recogniser.of(config).told(self.similarities(tokens), *wanted)

    def _part(self, name: str, tokens: LevelTokens) -> torch.Tensor:
        """H_low, H_middle, H_high or H_thematic; zeros in place of what is not read."""
        if name not in self.config.reads:
            count = self.config.thematic_tokens if name == THEMATIC else self.config.queries
            return self.thematic.weight.new_zeros(len(tokens.high), count, self.thematic.out_features)
        if name == THEMATIC:
            return self.thematic_tokens(tokens)
        return self.language_tokens(name, self.level(name)(tokens[name]))

    def language_tokens(self, level: str, states: torch.Tensor) -> torch.Tensor:
        """A level's query states (B, queries, width) as tokens of the language model (B, queries, D)."""
        projected: torch.Tensor = self.level(level).to_language(states)
        return projected

    def thematic_tokens(self, tokens: LevelTokens) -> torch.Tensor:
        """H_thematic (B, thematic, D) by the fully connected layer."""
        high = tokens.high.to(self.thematic.weight.dtype)
        if self.config.thematic_grid:
            raster = nn.functional.adaptive_avg_pool2d(_as_map(high, isqrt(high.shape[1])), self.config.thematic_grid)
            high = raster.flatten(2).transpose(1, 2)
        projected: torch.Tensor = self.thematic(self.thematic_norm(high))
        return torch.cat([projected, *self._content_tokens(tokens)], dim=1) if self.content else projected

    def whole(self, summary: torch.Tensor, last: torch.Tensor, logits: torch.Tensor | None) -> torch.Tensor:
        """What `LevelTokens.content` holds, (B, C) float32: the sources of content that no level has, side by side.

        Args:
            summary: of the photographs (B, C).
            last: the encoder's last hidden state, tokens or a map.
            logits: of its classes (B, classes), if it tells any.
        """
        parts = [summary.new_zeros(len(summary), 0, dtype=torch.float32)]
        for source in self._whole_sources:
            if source == "summary":
                parts.append(summary.float())
            elif source == "summary_deviation":
                parts.append(_as_map(last, self.config.side).float().flatten(2).std(-1, correction=0))
            else:
                assert logits is not None
                parts.append((SHARPNESS * logits.float()).softmax(-1) @ self.get_buffer("class_words").float())
        return torch.cat(parts, dim=-1)

    @property
    def _whole_sources(self) -> list[str]:
        return [source for source in self.content if source in WHOLE_SOURCES]

    def pooled_features(self, tokens: LevelTokens) -> torch.Tensor:
        """Every source of content side by side, (B, F) float32; without any, each level's mean."""
        sources = self.config.thematic_content or [f"{level}_mean" for level in LEVELS]
        widths = [self.config.content_widths[source] for source in self._whole_sources]
        whole = dict(zip(self._whole_sources, tokens.content.float().split(widths, dim=-1), strict=True))
        levels = {name: LEVEL_SOURCES[name] for name in sources if name not in whole}
        found = whole | {name: _pooled(tokens[level], statistic) for name, (level, statistic) in levels.items()}
        return torch.cat([found[source] for source in sources], dim=-1)

    @torch.no_grad()
    def fit_content(self, tokens: LevelTokens) -> None:
        """Take mean and deviation of every source's channels from photographs (B of them)."""
        if self.content:
            values = self.pooled_features(tokens)
            self.content_mean.copy_(values.mean(0))
            self.content_deviation.copy_(values.std(0, correction=0).clamp_min(1e-6))

    def _content_tokens(self, tokens: LevelTokens) -> list[torch.Tensor]:
        """A token (B, 1, D) of every source of content, its channels in deviations from their mean."""
        values = (self.pooled_features(tokens) - self.content_mean) / self.content_deviation
        parts = values.split(list(self.config.content_widths.values()), dim=-1)
        return [
            layer(part.to(self.thematic.weight.dtype)).unsqueeze(1)
            for layer, part in zip(self.content.values(), parts, strict=True)
        ]

    def pooled(self, tokens: LevelTokens) -> dict[str, torch.Tensor]:
        """Each level's query states, averaged over its queries: (B, width)."""
        return {level: self.level(level)(tokens[level]).mean(1) for level in LEVELS}

    def similarities(self, tokens: LevelTokens) -> torch.Tensor:
        """`similarity` of each photograph with every attribute state's mean guidance text: (B, S).

        The mean of the photograph and the mirrored one, where that was looked at: what one of them is mistaken for, the
        other often is not (docs/experiments.md).
        """
        if tokens.mirrored is not None and (rows := self.config.mirrored_rows):
            own, mirrored = self.similarities(replace(tokens, mirrored=None)), self.similarities(tokens.mirrored)
            return (own + mirrored[:, rows]) / 2
        pooled, table = self.pooled(tokens), self.config.attribute_states
        found = torch.empty(len(tokens.high), len(table), device=tokens.high.device)
        for level in LEVELS:
            rows = [row for row, (of, _, _) in enumerate(table) if of == level]
            found[:, rows] = self.similarity(level, pooled[level], self.prototypes[rows]).float()
        return found

    def similarity(self, level: str, pooled: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Temperature-scaled cosine between pooled states (B, width) and text embeddings (T, text_width): (B, T)."""
        image = nn.functional.normalize(self.level(level).to_contrast(pooled), dim=-1)
        text = nn.functional.normalize(self.text_to_contrast(texts.to(pooled.dtype)), dim=-1)
        return image @ text.T / self.temperature.exp()
