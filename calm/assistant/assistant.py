"""CALM for people: scores, comments, suggestions and what the model saw, from photographs.

The command line, the evaluation and the report all call this class, so what is measured is what users get.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from calm import uncollected
from calm.assistant.answers import LEAVE, Remedy, Score, Suggestion, own_standings, suggested
from calm.assistant.inputs import MAX_SIDE, Photographs, listed, opened
from calm.assistant.personal import InContext, Observed, encoded, read_last
from calm.assistant.recognition import Checked, Flaw, named, shares
from calm.assistant.speech import BEAMS, barred
from calm.attributes import LEVELS
from calm.attributes.taxonomy import taxonomy
from calm.instructions import (
    COMMENT_PROMPT,
    SCORE_PROMPT,
    SUGGESTION_PROMPT,
    as_public,
    messages,
    parse_score,
)
from calm.model.build import checkpoint_sha256, load_complete, load_pretrained_mfam
from calm.model.heads import Recogniser
from calm.model.mfam import LevelTokens
from calm.model.modeling import CalmForConditionalGeneration
from calm.model.processing import CalmImageProcessor, CalmProcessor
from calm.model.readouts import ANSWER_TOKENS, answer_log_likelihood, distribution, expectation, score_answer
from calm.model.released import FOLDER, is_released, load_released, metadata
from calm.model.settings import Runtime
from calm.sharing import fetch, is_name, revision_of


class Calm:
    """A trained CALM, or the encoder and MFAM of a pre-trained one (which can look, but not speak).

    Photographs are given as paths, images opened by Pillow, uint8 arrays (H, W, 3) or floating tensors (3, H, W) of
    values from 0 to 1; one, several, or a batch (B, ...). Answers come as a list, one for each.
    """

    def __init__(
        self,
        model: CalmForConditionalGeneration,
        processor: CalmProcessor | None,
        images: CalmImageProcessor,
        path: Path,
    ) -> None:
        self.model, self._processor, self._images, self._path = model, processor, images, path
        self.score_range = (model.config.score_min, model.config.score_max)

    @classmethod
    @uncollected()
    def from_pretrained(
        cls,
        path: Path | str | None = None,
        *,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "float32",
    ) -> Calm:
        """Load the model that comes with calm, or a checkpoint of this pipeline.

        Args:
            path: a whole model (models/finetune/scores), or models/pretrain; ORG/NAME[@REVISION] of the model hub; None
                is the one that comes with calm.
            dtype: what the frozen parts compute in. In bfloat16 (auto: where the processor has it) answers are faster
                and depend on what else is in the batch.

        Raises:
            FileNotFoundError: there is no model; the message says what to run.
            HubError: the hub does not give it.
        """
        if path is not None and is_name(path):
            path = fetch(str(path))
        path, runtime = FOLDER if path is None else Path(path), Runtime(device=device, dtype=dtype)
        if (path / "attributes").is_dir():
            model, preprocessing = load_pretrained_mfam(path, runtime)
            return cls(model, None, CalmImageProcessor.of(preprocessing), path)
        assembly = load_released(path, runtime) if is_released(path) else load_complete(path, runtime)
        return cls(assembly.model, assembly.processor, assembly.processor.image_processor, path)

    @property
    def publics(self) -> list[str]:
        """Whose taste the model can be asked for: the datasets whose raters it learnt from, the default first."""
        return [public["name"] for public in self.model.config.publics]

    def public(self, name: str | None = None) -> str | None:
        """The public that is asked: this one, by default the model's first; None of a model whose public has no name.

        Raises:
            ValueError: the model does not know it.
        """
        if name is not None and name not in self.publics:
            known = ", ".join(self.publics) or "none by name"
            raise ValueError(f"this model does not know the taste of '{name}'; it knows: {known}")
        return name or next(iter(self.publics), None)

    @property
    def max_side(self) -> int:
        """Pixels that the longer side of a photograph is scaled down to first, as in the model's training."""
        return self.model.config.max_side or MAX_SIDE

    def _percentile(self, score: float, public: str | None) -> float | None:
        if public is None:
            return None
        steps = self.model.config.publics[self.model.config.public(public)]["steps"]
        return float(np.interp(score, steps, np.linspace(0, 100, len(steps))))

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Model, parts (name, source, sha256), hash of the weights, preprocessing: printed with every score."""
        named = revision_of(self._path) or str(self._path)
        preprocessing = {
            "size": [self._images.size["height"], self._images.size["width"]],
            "mean": list(self._images.image_mean),
            "std": list(self._images.image_std),
            "resampling": Image.Resampling(self._images.resample).name.lower(),
            "max_side": self.max_side,
            "dtype": str(self.model.language_model.dtype).removeprefix("torch."),
        }
        return {
            "model": metadata(self._path)["name"] if is_released(self._path) else named,
            "publics": {public["name"]: public["origin"] for public in self.model.config.publics},
            "parts": self.model.config.provenance,
            "checkpoint_sha256": checkpoint_sha256(self._path),
            "preprocessing": preprocessing,
        }

    @torch.inference_mode()
    def score(
        self, images: Photographs, batch_size: int = 16, public: str | None = None, *, written: bool = True
    ) -> list[Score]:
        """Score photographs: one forward pass for expectation and regression, a few more tokens for the text.

        Args:
            public: one of `publics`, whose taste is asked for; by default the first.
            written: whether the text is read too, which takes a tenth to a fifth of the time.

        Raises:
            ValueError: the model does not know this public.
        """
        asked = self.public(public)
        number = self.model.config.public(asked) if asked else 0
        prompt = as_public(SCORE_PROMPT, asked if number else None)
        tokenizer = self._speaker.tokenizer
        ends = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(".")
        told = partial(score_answer, self.model, public=number, max_tokens=ANSWER_TOKENS if written else 0)
        scores = []
        for tokens in self._encoded(images, batch_size):
            visual, mirrored = self.model.shown(tokens)
            embeddings = self._prompt(prompt, visual, score=True)
            shares, regressed, ids = told(embeddings, visual, *ends, mirrored_tokens=mirrored)
            numbers = zip(expectation(shares).tolist(), regressed.tolist(), distribution(shares).tolist(), strict=True)
            answers = tokenizer.batch_decode(ids, skip_special_tokens=True)
            for raw, (expected, regression, steps) in zip(answers, numbers, strict=True):
                below = self._percentile(regression, asked)
                scores.append(Score(parse_score(raw), expected, regression, raw.strip(), tuple(steps), below))
        return scores

    @torch.inference_mode()
    def comment(self, images: Photographs, batch_size: int = 16, max_new_tokens: int = 40) -> list[str]:
        """One comment on each photograph, by beam search; no clause stands twice, no verdict contradicts the score."""
        texts: list[str] = []
        standings = own_standings(self, images := listed(images), batch_size)
        for tokens, pictures in self._looked_at(images, batch_size):
            here, standings = standings[: len(tokens.high)], standings[len(tokens.high) :]
            tells = self.model.config.told_states and self.model.config.recognition
            settled = self._checked.settled(tokens, pictures) if tells else None
            visual = self._checked.telling(tokens, settled) if settled else self.model.mfam(tokens)
            embeddings = self._prompt(COMMENT_PROMPT, visual)
            mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
            ids = self.model.generate(
                inputs_embeds=embeddings,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                num_beams=BEAMS,
                do_sample=False,
                # A number is no comment; a photograph like those that only scores were learnt from would get one.
                begin_suppress_tokens=self.model.config.digit_token_ids,
                logits_processor=barred(here, settled, self._speaker.tokenizer),
            )
            texts += [text.strip() for text in self._speaker.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return texts

    @torch.inference_mode()
    def suggest(self, images: Photographs, top: int = 3, batch_size: int = 16) -> list[list[Suggestion]]:
        """What to change, likeliest flaw first; a single `LEAVE` where no flaw is likely enough.

        The Q-formers' calibrated recognition decides what: states of at least `config.told_probability`, and others of
        at least `config.told_further` beside them; rare ones and turns, if they stand (`calm.assistant.recognition`).
        How it is said is the language model's choice among the remedies of that state; of a turn, how far.

        Raises:
            UncalibratedError: the checkpoint was trained by an earlier calm.
        """
        suggestions = []
        for tokens, pictures in self._looked_at(images, batch_size):
            settled = self._checked.settled(tokens, pictures)
            prompts = self._prompt(SUGGESTION_PROMPT, self._checked.telling(tokens, settled)).split(1)
            for prompt, flaws, sound in zip(prompts, settled.told, settled.sound, strict=True):
                alone = [Suggestion(None, None, LEAVE, sound)]
                suggestions.append(self._said(prompt, flaws[:top]) if flaws else alone)
        return suggestions

    @torch.inference_mode()
    def recognise(self, images: Photographs, batch_size: int = 32) -> list[list[tuple[str, str, float]]]:
        """(attribute, state, calibrated probability) of each attribute's likeliest change, likeliest first.

        Whether it stands is not asked: `suggest` and `comment` do.

        Raises:
            UncalibratedError: the checkpoint was trained by an earlier calm.
        """
        recogniser, similarities = Recogniser.of(self.model.config), self.model.mfam.similarities
        batches = self._encoded(images, batch_size)
        return [states for tokens in batches for states in named(recogniser, similarities(tokens))]

    @property
    def _checked(self) -> Checked:
        return Checked(self.model, lambda pictures: next(self._encoded(pictures, len(pictures))))

    def _said(self, prompt: torch.Tensor, flaws: Sequence[Flaw]) -> list[Suggestion]:
        """Of what can be suggested for each flaw, what the language model finds likeliest after a prompt (1, L, D)."""
        texts = [suggested(flaw.attribute, flaw.state, flaw.turn) for flaw in flaws]
        answers = self._answers([text for of_flaw in texts for text in of_flaw])
        likely = answer_log_likelihood(self.model, prompt, answers).split([*map(len, texts)])
        return [
            Suggestion(flaw.attribute, flaw.state, of_flaw[int(scores.argmax())], flaw.probability)
            for flaw, of_flaw, scores in zip(flaws, texts, likely, strict=True)
        ]

    @torch.inference_mode()
    def rank_remedies(self, images: Photographs, batch_size: int = 16) -> list[list[Remedy]]:
        """Every remedy of the taxonomy, ranked by the language model alone (paper: zero-shot), most called for first.

        By how much likelier its text is per token after the photograph than after the same question without one.
        """
        states = [(attribute.name, state.name) for attribute in taxonomy().attributes for state in attribute.states]
        remedies = [(name, state, suggested(name, state)[0]) for name, state in states]
        answers = self._answers([text for *_, text in remedies])
        unseen = answer_log_likelihood(self.model, self._without_photograph(SUGGESTION_PROMPT), answers)
        ranked = []
        for tokens in self._encoded(images, batch_size):
            for prompt in self._prompt(SUGGESTION_PROMPT, self.model.mfam(tokens)).split(1):
                odds = answer_log_likelihood(self.model, prompt, answers) - unseen
                order: list[int] = odds.argsort(descending=True, stable=True).tolist()
                ranked.append([Remedy(*remedies[row], odds[row].item()) for row in order])
        return ranked

    @torch.inference_mode()
    def attributes(self, images: Photographs, batch_size: int = 32) -> list[dict[str, dict[str, float]]]:
        """Every state of every attribute by how well it fits: a level's queries against the states' guidance texts.

        Shares sum to 1 within an attribute, as if its states were equally common; `recognise` knows how common each is.
        """
        table, batches = self.model.config.attribute_states, self._encoded(images, batch_size)
        return [shares(table, row) for tokens in batches for row in self.model.mfam.similarities(tokens)]

    @torch.inference_mode()
    def attention(self, images: Photographs, batch_size: int = 32) -> dict[str, np.ndarray]:
        """Where each level's queries looked: level -> (B, h, w), each map summing to 1."""
        maps: dict[str, list[np.ndarray]] = {level: [] for level in LEVELS}
        for tokens in self._encoded(images, batch_size, mirrored=False):
            for level in LEVELS:
                weights = self.model.mfam.level(level).attention(tokens[level])
                side = round(weights.shape[1] ** 0.5)
                maps[level].append(weights.unflatten(1, (side, side)).float().cpu().numpy())
        return {level: np.concatenate(parts) for level, parts in maps.items()}

    @torch.inference_mode()
    def pooled_features(self, images: Photographs, batch_size: int = 32) -> np.ndarray:
        """What content reads of photographs, pooled over the places: (B, F) float32 (`MFAM.pooled_features`)."""
        few = self._encoded(images, batch_size, mirrored=False)
        return torch.cat([self.model.mfam.pooled_features(tokens) for tokens in few]).cpu().numpy()

    @torch.inference_mode()
    def observe(self, images: Photographs, batch_size: int = 16) -> Observed:
        """Everything that personal scores are made of, each photograph looked at once; no text is written."""
        parts = []
        for tokens in self._encoded(images, batch_size):
            visual, mirrored = self.model.shown(tokens)
            prompts = self._prompt(SCORE_PROMPT, visual, score=True)
            read = read_last(self.model, prompts, visual, mirrored, use_cache=False)
            parts.append(
                Observed(
                    visual,
                    self.model.mfam.pooled_features(tokens).cpu().numpy(),
                    read.states.float().cpu().numpy(),
                    read.expectation.double().cpu().numpy(),
                    read.regression.double().cpu().numpy(),
                )
            )
        return Observed.joined(parts)

    def in_context(self, support: torch.Tensor, scores: Sequence[float]) -> InContext:
        """A rater's photographs (visual tokens of `observe`) and scores, ready to score others the rater's way."""
        return InContext(self.model, self._speaker, support, scores)

    @property
    def _speaker(self) -> CalmProcessor:
        if self._processor is None:
            raise ValueError(
                f"{self._path} is pre-trained only and cannot speak: name a fine-tuned model (models/finetune/scores)"
            )
        return self._processor

    def _encoded(self, images: Photographs, batch_size: int, *, mirrored: bool = True) -> Iterator[LevelTokens]:
        return (encoded(self.model, pixels, mirrored=mirrored) for pixels, _ in self._pixels(images, batch_size))

    def _looked_at(self, images: Photographs, batch_size: int) -> Iterator[tuple[LevelTokens, list[Image.Image]]]:
        return ((encoded(self.model, pixels), pictures) for pixels, pictures in self._pixels(images, batch_size))

    def _pixels(self, images: Photographs, batch_size: int) -> Iterator[tuple[torch.Tensor, list[Image.Image]]]:
        """Batches of photographs as the encoder wants them, (B, 3, S, S), and as pictures."""
        photographs = listed(images)
        for start in range(0, len(photographs), batch_size):
            pictures = [opened(one, self.max_side) for one in photographs[start : start + batch_size]]
            pixels = self._images(pictures, return_tensors="pt")["pixel_values"]
            yield pixels.to(self.model.mfam.thematic.weight.device), pictures

    def _prompt(self, prompt: str, visual_tokens: torch.Tensor, *, score: bool = False) -> torch.Tensor:
        """Embeddings (B, L, D) of one prompt for every photograph; `score` as in `CalmProcessor.prompt`."""
        processor = self._speaker
        ids = processor.tokenizer(processor.prompt(messages(prompt), score=score), return_tensors="pt").input_ids
        ids = ids.expand(visual_tokens.shape[0], -1).to(visual_tokens.device)
        return self.model.embed_prompt(ids, visual_tokens)

    def _without_photograph(self, prompt: str) -> torch.Tensor:
        """Embeddings (1, L, D) of a prompt that no photograph goes with."""
        text = self._speaker.prompt([{"role": "user", "content": prompt}])
        ids = self._speaker.tokenizer(text, return_tensors="pt").input_ids
        return self.model.embed_prompt(ids.to(self.model.mfam.thematic.weight.device), None)

    def _answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each."""
        return [self._speaker.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
