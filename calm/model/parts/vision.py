"""What the visual encoder itself says of photographs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from PIL import Image

from calm.model.build import resolve_dtype
from calm.model.parts.efficientnet_lite import EfficientNetLiteConfig
from calm.model.parts.pretrained import imagenet_names, load_vision, vision_part
from calm.model.processing import CalmImageProcessor
from calm.model.settings import Runtime

TOP = 5


@torch.inference_mode()
def imagenet_labels(
    name: str, images: Iterable[Image.Image], batch_size: int = 32, runtime: Runtime | None = None
) -> Iterator[list[tuple[str, float]]]:
    """The five likeliest ImageNet classes of each photograph, with probabilities, by the named encoder's own head.

    Photographs are taken from `images` a batch at a time. An encoder without such a head (CLIP, DINOv2) has nothing to
    say: then none is taken, and nothing comes back.
    """
    if not isinstance(vision_part(name).config, EfficientNetLiteConfig):
        return
    vision = load_vision(name, resolve_dtype(runtime or Runtime()))
    processor, names, photographs = CalmImageProcessor.of(vision.preprocessing), imagenet_names(), iter(images)
    while batch := list(islice(photographs, batch_size)):
        pixels = processor(batch, return_tensors="pt")["pixel_values"]
        top = vision.model(pixels).logits.float().softmax(-1).topk(TOP)
        for probabilities, classes in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            yield [(names[c], p) for c, p in zip(classes, probabilities, strict=True)]
