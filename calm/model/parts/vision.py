"""What the visual encoder itself says of photographs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from calm.model.build import resolve_dtype
from calm.model.parts.efficientnet_lite import EfficientNetLiteModel
from calm.model.parts.pretrained import imagenet_names, load_vision
from calm.model.processing import CalmImageProcessor
from calm.model.settings import Runtime

TOP = 5


@torch.inference_mode()
def imagenet_labels(
    name: str, images: Sequence[Image.Image], batch_size: int = 32, runtime: Runtime | None = None
) -> list[list[tuple[str, float]]]:
    """The five likeliest ImageNet classes of each photograph, with probabilities, by the named encoder's own head.

    An encoder without such a head (CLIP, DINOv2) has nothing to say: an empty list for each photograph.
    """
    vision = load_vision(name, resolve_dtype(runtime or Runtime()))
    if not isinstance(vision.model, EfficientNetLiteModel):
        return [[] for _ in images]
    processor, names = CalmImageProcessor.of(vision.preprocessing), imagenet_names()
    found = []
    for start in range(0, len(images), batch_size):
        pixels = processor(list(images[start : start + batch_size]), return_tensors="pt")["pixel_values"]
        top = vision.model(pixels).logits.float().softmax(-1).topk(TOP)
        for probabilities, classes in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            found.append([(names[c], p) for c, p in zip(classes, probabilities, strict=True)])
    return found
