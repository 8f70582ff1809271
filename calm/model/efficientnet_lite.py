"""EfficientNet-Lite0 as a transformers model that yields the feature map of every block.

Written here because no maintained package has it without torchvision, which replaces or breaks the CPU build of torch.
Architecture: EfficientNet-B0 (Tan and Le 2019) without squeeze-and-excitation, with ReLU6 and a fixed stem and head, as
released by Google for edge devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from calm.model.configuration import BLOCKS, HEAD_CHANNELS, EfficientNetLiteConfig

EPSILON = 1e-3  # of the published batch norms, as in the TensorFlow original


class SamePadConv2d(nn.Conv2d):
    """Stride-2 convolution with TensorFlow's 'SAME' padding, which is asymmetric there."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        pads = []
        for size, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(input, pads))


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups)
    return SamePadConv2d(channels_in, channels_out, kernel, stride, groups=groups)


def _relu6(fresh: torch.Tensor) -> torch.Tensor:
    """In place: a convolution's output is nobody else's, and fetching fresh memory costs more than the sum."""
    return nn.functional.relu6(fresh, inplace=True)


class MBConv(nn.Module):
    """Inverted residual block: expand, depthwise, project. Batch norms are folded into the convolutions."""

    def __init__(self, kernel: int, stride: int, expansion: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.residual = stride == 1 and channels_in == channels_out
        self.expand = _conv(channels_in, hidden, 1) if expansion > 1 else None
        self.depthwise = _conv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _conv(hidden, channels_out, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        hidden = maps if self.expand is None else _relu6(self.expand(maps))
        hidden = self.project(_relu6(self.depthwise(hidden)))
        return hidden + maps if self.residual else hidden


@dataclass
class EfficientNetLiteOutput(ModelOutput):
    """What a forward pass gives.

    Attributes:
        last_hidden_state: the head's map.
        hidden_states: all maps (B, C, h, w).
        pooler_output: the head's map, averaged over the places: (B, C).
        logits: of the ImageNet-1k classes.
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    pooler_output: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class EfficientNetLiteModel(PreTrainedModel):
    """Pixels (B, 3, H, W), normalised as (x - 127) / 128 on 0-255, to 17 feature maps (B, C, h, w)."""

    config_class = EfficientNetLiteConfig
    config: EfficientNetLiteConfig
    main_input_name = "pixel_values"
    # It has no attention: whichever is asked for of a model around it will do.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        divide = config.width_divisor
        self.stem = _conv(3, 32 // divide, 3, 2)
        self.blocks = nn.ModuleList(MBConv(k, s, e, i // divide, o // divide) for k, s, e, i, o in BLOCKS)
        self.head = _conv(BLOCKS[-1][4] // divide, HEAD_CHANNELS // divide, 1)
        self.classifier = nn.Linear(HEAD_CHANNELS // divide, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As torch initialises its layers: random weights serve tests alone."""

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> EfficientNetLiteOutput:
        """Hidden states are the 16 blocks' maps and the head's."""
        maps = pixel_values.to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        maps = _relu6(self.stem(maps))
        states = []
        for block in self.blocks:
            maps = block(maps)
            states.append(maps)
        states.append(_relu6(self.head(maps)))
        summary = states[-1].mean((2, 3))
        return EfficientNetLiteOutput(
            last_hidden_state=states[-1],
            hidden_states=tuple(states),
            pooler_output=summary,
            logits=self.classifier(summary),
        )


def convert_state_dict(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fold the batch norms of the published checkpoint into its convolutions: the encoder is never trained here."""
    folded: dict[str, torch.Tensor] = {}
    pairs = {"_conv_stem": ("_bn0", "stem"), "_conv_head": ("_bn1", "head")}
    for block in range(len(BLOCKS)):
        for conv, norm in (("expand", "_bn0"), ("depthwise", "_bn1"), ("project", "_bn2")):
            pairs[f"_blocks.{block}._{conv}_conv"] = (f"_blocks.{block}.{norm}", f"blocks.{block}.{conv}")
    for conv, (norm, name) in pairs.items():
        if f"{conv}.weight" not in published:  # the first block has no expansion
            continue
        statistics = (published[f"{norm}.running_mean"], published[f"{norm}.running_var"], EPSILON)
        affine = (published[f"{norm}.weight"], published[f"{norm}.bias"])
        weight, bias = fuse_conv_bn_weights(published[f"{conv}.weight"], None, *statistics, *affine)
        folded[f"{name}.weight"], folded[f"{name}.bias"] = weight.detach(), bias.detach()
    return folded | {"classifier.weight": published["_fc.weight"], "classifier.bias": published["_fc.bias"]}
