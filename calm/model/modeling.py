"""CalmForConditionalGeneration: visual encoder, multi-scale feature alignment module, language model, score head."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation.candidate_generator import CandidateGenerator, PromptLookupCandidateGenerator
from transformers.modeling_outputs import ModelOutput
from transformers.utils import torch_compilable_check

from calm.model.configuration import CalmConfig
from calm.model.heads import Lines, ScoreHead
from calm.model.mfam import MFAM, LevelTokens, level_tokens

IGNORED = -100  # label of positions that are not learned
Shown = tuple[torch.Tensor | None, torch.Tensor | None]  # visual tokens of the photographs, and of the mirrored ones


@dataclass
class CalmOutput(ModelOutput):
    """What a forward pass gives.

    Attributes:
        loss: language-model loss, where labels were given: mean over answers of the mean over their tokens.
        logits: (B, kept positions, vocabulary).
        score: regression readout (B,), on the score scale; None unless there is one photograph to each prompt.
        score_parts: (B, parts), what each part of the score head says; the readout is their weighted mean.
        past_key_values: the language model's cache.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    score: torch.Tensor | None = None
    score_parts: torch.Tensor | None = None
    past_key_values: Cache | None = None


class CalmForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """The whole model. The encoder is frozen in every stage, so it never builds a graph."""

    config_class = CalmConfig
    config: CalmConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    # Of checkpoints by an earlier calm, which compared a photograph with the average one.
    _keys_to_ignore_on_load_unexpected: ClassVar = ["average_visual_tokens"]
    _no_split_modules: ClassVar = ["Blip2QFormerLayer"]  # the parts name their own
    _supports_sdpa = True
    # Trained in float32 and read back so, whatever the frozen parts' number format.
    _keep_in_fp32_modules_strict: ClassVar = ["mfam", "score_head"]
    _tied_weights_keys: ClassVar = {"language_model.lm_head.weight": "language_model.model.embed_tokens.weight"}

    def __init__(
        self,
        config: CalmConfig,
        vision_tower: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        """Build from a configuration, taking parts that were already loaded where they are given."""
        super().__init__(config)
        for part in (vision_tower, language_model):
            for module in part.modules() if part is not None else ():
                module._is_hf_initialized = True  # or post_init would draw the loaded weights anew
        self.vision_tower = vision_tower or AutoModel.from_config(config.vision_config)
        self.mfam = MFAM(config)
        self.language_model = language_model or AutoModelForCausalLM.from_config(config.text_config)
        self.score_head = ScoreHead(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The parts initialise themselves; the layers between them as in BERT. Scores begin in the middle."""
        if isinstance(module, Lines):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embedding."""
        embedding: nn.Module = self.language_model.get_input_embeddings()
        return embedding

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        head: nn.Module = self.language_model.get_output_embeddings()
        return head

    @torch.no_grad()
    def encode_images(self, pixel_values: torch.Tensor) -> LevelTokens:
        """Normalised pixels (B, 3, S, S) to the encoder's features by level."""
        outputs = self.vision_tower(pixel_values.to(self.vision_tower.dtype), output_hidden_states=True)
        levels = level_tokens(outputs.hidden_states, self.config.levels, self.config.grid, self.config.side)
        logits = getattr(outputs, "logits", None)
        content = self.mfam.whole(outputs.pooler_output, outputs.hidden_states[-1], logits)
        return LevelTokens(levels["low"], levels["middle"], levels["high"], content)

    def embed_prompt(self, input_ids: torch.Tensor, visual_tokens: torch.Tensor | None) -> torch.Tensor:
        """Token ids (B, L) with placeholders to embeddings (B, L, D), visual tokens in the placeholders' places.

        Raises:
            ValueError: the prompt has more or fewer placeholders than there are visual tokens.
        """
        places = self._places(input_ids)
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(places, 0))
        wanted = 0 if visual_tokens is None else visual_tokens.shape[0] * visual_tokens.shape[1]
        torch_compilable_check(
            places.sum() == wanted,
            lambda: (
                f"the prompt holds {int(places.sum())} placeholders for {wanted} visual tokens: "
                "one <image> a photograph"
            ),
        )
        if visual_tokens is None:
            return embeddings
        return embeddings.masked_scatter(places.unsqueeze(-1), visual_tokens.to(embeddings.dtype))

    def _places(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Where a photograph's tokens go."""
        return torch.isin(input_ids, torch.tensor(self.config.placeholder_token_ids, device=input_ids.device))

    def _get_candidate_generator(self, *args: Any, **kwargs: Any) -> CandidateGenerator:
        """Transformers' own; a draft that is looked up in the prompt ends where a photograph begins."""
        generator: CandidateGenerator = super()._get_candidate_generator(*args, **kwargs)
        if isinstance(generator, PromptLookupCandidateGenerator):
            look_up, ends = generator.get_candidates, generator.eos_token_id
            end = 0 if ends is None else int(ends.flatten()[0])  # of several, any

            def words(input_ids: torch.Tensor, **rest: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
                found, logits = look_up(input_ids.masked_fill(self._places(input_ids), end), **rest)
                return torch.cat([input_ids, found[:, input_ids.shape[1] :]], dim=1), logits

            generator.get_candidates = words
        return generator

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        visual_tokens: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        digit_targets: torch.Tensor | None = None,
        decimal_targets: torch.Tensor | None = None,
        logits_to_keep: int = 0,
        score_positions: torch.Tensor | None = None,
        publics: torch.Tensor | None = None,
        mirrored_tokens: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CalmOutput:
        """Read photographs and prompts.

        Args:
            input_ids: (B, L), with the placeholders of every photograph in place.
            pixel_values: (photographs, 3, S, S), normalised; or
            visual_tokens: (photographs, tokens, D), the MFAM's output; beside `inputs_embeds`, for the score alone.
            labels: (B, L), -100 where nothing is learned.
            digit_targets: (B, 9), shares of 1 to 9 as an answer's first digit; NaN, the default: as the label says.
            decimal_targets: (B, 10), shares of 0 to 9 as its second one, beside `digit_targets`; the same.
            logits_to_keep: last positions to give logits for; 0 means all.
            score_positions: (B,) where the score is read; the last position by default, as left padding has it.
            publics: (B,) whose score it is, as numbers of `config.publics`; the first by default.
            mirrored_tokens: as `visual_tokens`, of the mirrored photographs (`shown`); with `pixel_values`, their own.
        """
        self._warn_of_adapters()
        shown = (visual_tokens, mirrored_tokens)
        if inputs_embeds is None:
            inputs_embeds, shown = self._read(input_ids, pixel_values, shown)
        if labels is not None:
            kwargs.setdefault("use_cache", False)  # nothing follows an answer that is given; the cache is a copy
        where = {"attention_mask": attention_mask, "position_ids": position_ids, "past_key_values": past_key_values}
        outputs = self.language_model.model(inputs_embeds=inputs_embeds, **where, **kwargs)
        scored = self._scored(states := outputs.last_hidden_state, shown, score_positions, publics)
        if labels is not None:
            return CalmOutput(loss=self._language_loss(states, labels, digit_targets, decimal_targets), **scored)
        # contiguous, or torch copies the head once for every row of the batch
        kept = states[:, -logits_to_keep:].contiguous() if logits_to_keep else states
        logits = self.language_model.lm_head(kept)
        return CalmOutput(logits=logits, past_key_values=outputs.past_key_values, **scored)

    def _warn_of_adapters(self) -> None:
        """Peft applies an adapter to any model, to one that has it already too."""
        for adapter in getattr(self.language_model, "peft_config", {}).values():
            made_for = adapter.base_model_name_or_path
            if made_for and made_for != self.language_model.name_or_path:
                warnings.warn(
                    f"the adapter on the language model was made for {made_for}, not for the one in this checkpoint: "
                    "if it comes from the folder beside it, it is merged already and acts twice; leave it out",
                    stacklevel=3,
                )

    def look(self, pixel_values: torch.Tensor) -> LevelTokens:
        """As `encode_images`, with the mirrored photographs beside them where recognition or the score reads these."""
        tokens = self.encode_images(pixel_values)
        if self.training or not (self.config.mirrored_rows or self.config.score_mirrored):
            return tokens
        return replace(tokens, mirrored=self.encode_images(pixel_values.flip(-1)))

    def shown(self, tokens: LevelTokens) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Visual tokens (B, tokens, D) of photographs (`look`), and of the mirrored ones where the score reads them."""
        mirrored = tokens.mirrored if self.config.score_mirrored else None
        return self.mfam(tokens), None if mirrored is None else self.mfam(mirrored)

    def _read(
        self, input_ids: torch.Tensor | None, pixel_values: torch.Tensor | None, shown: Shown
    ) -> tuple[torch.Tensor, Shown]:
        """Embeddings of a prompt, and what it shows."""
        if input_ids is None:
            raise ValueError("give input_ids or inputs_embeds")
        if shown[0] is None and pixel_values is not None:
            shown = self.shown(self.look(pixel_values))
        return self.embed_prompt(input_ids, shown[0]), shown

    def _scored(
        self,
        states: torch.Tensor,
        shown: Shown,
        positions: torch.Tensor | None,
        publics: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """The regression readout of one whole photograph a prompt; a prompt about several, or one level, has none."""
        visual_tokens, mirrored_tokens = shown
        if visual_tokens is None or visual_tokens.shape[:2] != (len(states), self.config.vision_tokens):
            return {}
        rows = torch.arange(len(states), device=states.device)
        deciding = states[:, -1] if positions is None else states[rows, positions]
        parts = self.regress_parts(deciding, visual_tokens, publics)
        mirrored = None if mirrored_tokens is None else self.regress_parts(deciding, mirrored_tokens, publics)
        return {"score": self._weighed(parts, mirrored), "score_parts": parts}

    def _language_loss(
        self,
        states: torch.Tensor,
        labels: torch.Tensor,
        digit_targets: torch.Tensor | None,
        decimal_targets: torch.Tensor | None,
    ) -> torch.Tensor:
        """Cross-entropy, mean over each answer's tokens and then over answers: a score counts as much as a comment.

        The head, a large share of a small model, is asked only where something is learned.
        """
        labels = labels.masked_fill(self._places(labels), IGNORED)  # in a copy of the prompt: nobody says them
        learned = labels[:, 1:] != IGNORED
        logits = self.language_model.lm_head(states[:, :-1][learned]).float()
        losses = nn.functional.cross_entropy(logits, labels[:, 1:][learned], reduction="none")
        counts = learned.float()
        if digit_targets is not None:
            digits = torch.tensor(list(self.config.digit_token_ids), device=labels.device)
            is_digit = torch.isin(labels[:, 1:], digits) & ~digit_targets[:, :1].isnan()
            first, second = (is_digit & (is_digit.cumsum(1) == number) for number in (1, 2))
            for at, targets, ids in ((first, digit_targets, digits[1:]), (second, decimal_targets, digits)):
                if targets is not None:
                    log_p = logits[at[learned]].log_softmax(-1)[:, ids]
                    losses[at[learned]] = -(targets[at.any(1)] * log_p).sum(-1)
            # Points and the end are soon learnt, and the decimal is hardly to be known: the first digit counts as much
            # as all that follows it.
            counts = torch.where(first, learned.sum(1, keepdim=True) - 1.0, counts)
        per_token = torch.zeros(learned.shape, device=losses.device).masked_scatter(learned, losses)
        return ((per_token * counts).sum(1) / counts.sum(1).clamp_min(1)).mean()

    def regress(
        self, states: torch.Tensor, visual_tokens: torch.Tensor, mirrored_tokens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Regression readout (B,), on the score scale: the weighted mean of what `regress_parts` says."""
        mirrored = None if mirrored_tokens is None else self.regress_parts(states, mirrored_tokens)
        return self._weighed(self.regress_parts(states, visual_tokens), mirrored)

    def _weighed(self, parts: torch.Tensor, mirrored: torch.Tensor | None) -> torch.Tensor:
        """The score (B,) of what the parts (B, parts) say; of the mirrored photograph the visual part counts alone."""
        if parts.shape[1] == 1:
            return parts[:, 0]
        seen = parts[:, 1] if mirrored is None else (parts[:, 1] + mirrored[:, 1]) / 2
        return (1 - self.config.score_visual) * parts[:, 0] + self.config.score_visual * seen

    def regress_parts(
        self, states: torch.Tensor, visual_tokens: torch.Tensor, publics: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What each part of the score head says, (B, parts) on the score scale; 0 of a part is the middle of it.

        Args:
            states: (B, D), the language model's where it decides on its answer.
            visual_tokens: (B, tokens, D) of the scored photographs.
            publics: (B,), whose score it is; the first public's by default.
        """
        half = (self.config.score_max - self.config.score_min) / 2
        publics = torch.zeros(len(states), dtype=torch.long) if publics is None else publics
        said = self.score_head(states, visual_tokens)
        rows = torch.arange(len(said), device=said.device)
        parts: torch.Tensor = self.config.score_min + half + half * said[rows, :, publics.to(said.device)]
        return parts
