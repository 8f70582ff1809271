"""What a GPU has to hold while it trains, and which change would make it fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from calm.training.loop.strategies import DEEPSPEED, accumulation
from calm.training.settings import Strategy

MOMENTS = 2  # Adam's, in the number format of the weights
# DeepSpeed's defaults, in elements; workflow/deepspeed/ may say otherwise.
BUCKET = {"reduce_bucket_size": 500_000_000, "stage3_max_live_parameters": 1_000_000_000}
MASTER_BYTES = 4  # DeepSpeed updates a copy in float32
GATHERED_BLOCKS = 2  # FSDP2: the block that computes, and the next one on its way


@dataclass(frozen=True)
class Weights:
    """Sizes of a model in one stage.

    Attributes:
        parameters: by part, then "all" and "trainable".
        frozen_bytes, trainable_bytes: of the weights.
        trainable: number of trained parameters.
        block_bytes: of the largest repeated block, which sharded weights are fetched by.
    """

    parameters: Mapping[str, int]
    frozen_bytes: int
    trainable_bytes: int
    block_bytes: int

    @staticmethod
    def of(model: nn.Module, parts: Mapping[str, nn.Module]) -> Weights:
        """Count a model whose trained parameters require gradients. `parts` share no parameter."""
        trained = [p for p in model.parameters() if p.requires_grad]
        held = [*model.parameters(), *model.buffers()]
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
        counts["all"] = sum(p.numel() for p in model.parameters())
        counts["trainable"] = sum(p.numel() for p in trained)
        trainable_bytes = sum(p.nbytes for p in trained)
        blocks = [block for m in model.modules() if isinstance(m, nn.ModuleList) for block in m]
        largest = max((sum(p.nbytes for p in block.parameters()) for block in blocks), default=0)
        return Weights(counts, sum(t.nbytes for t in held) - trainable_bytes, trainable_bytes, largest)


@dataclass(frozen=True)
class Arrangement:
    """How a stage's batch and state are spread.

    Attributes:
        kind: the strategy's.
        gpus: on all nodes together.
        zero: 0: every GPU holds everything; 2: gradients and optimiser state are shared out; 3: weights too.
        micro_batch: samples that a GPU computes at once.
        checkpointing: activations of the language model are computed twice instead of kept.
    """

    kind: str
    gpus: int
    zero: int
    micro_batch: int
    checkpointing: bool

    @staticmethod
    def of(strategy: Strategy, batch: int, gpus: int | None = None) -> Arrangement:
        """What params.yaml says, on another number of GPUs where one is given.

        Raises:
            ValueError: the batch cannot be shared out evenly.
        """
        kind, count = strategy.kind, gpus or strategy.world
        if batch % count:
            raise ValueError(f"a batch of {batch} cannot be shared evenly by {count} GPUs")
        if kind == "single" and count > 1:
            kind = "ddp"
        spread = strategy.model_copy(update={"nodes": 1, "processes": count})
        micro = batch // (count * accumulation(batch, spread))
        zero = 3 if kind == "fsdp2" else strategy.zero
        return Arrangement(kind, count, zero, micro, strategy.gradient_checkpointing)

    def __str__(self) -> str:
        shared = {0: "everything on each GPU", 2: "ZeRO-2", 3: "ZeRO-3" if self.kind == "deepspeed" else "FSDP2"}
        kept = "gradient checkpointing" if self.checkpointing else "no checkpointing"
        return f"{self.gpus} GPUs, {shared[self.zero]}, micro-batch {self.micro_batch}, {kept}"


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, at the moment of the most: the end of a forward pass while gradients are accumulated."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int

    @cached_property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers


def on_each_gpu(weights: Weights, arrangement: Arrangement, activations: int) -> Memory:
    """Memory of one GPU.

    Args:
        activations: bytes of one micro-batch's forward and backward pass.
    """
    share = arrangement.gpus if arrangement.zero else 1
    held = weights.frozen_bytes + weights.trainable_bytes
    master = MASTER_BYTES * weights.parameters["trainable"] if arrangement.kind == "deepspeed" else 0
    return Memory(
        weights=-(-held // arrangement.gpus) if arrangement.zero == 3 else held,
        gradients=-(-weights.trainable_bytes // share),
        optimizer=-(-(MOMENTS * weights.trainable_bytes + master) // share),
        activations=activations,
        buffers=_buffers(weights, arrangement),
    )


def _buffers(weights: Weights, arrangement: Arrangement) -> int:
    """What the strategies' libraries hold for the exchange between GPUs."""
    if arrangement.kind == "ddp":
        return weights.trainable_bytes  # gradients once more, in buckets
    if arrangement.kind == "fsdp2":
        return GATHERED_BLOCKS * weights.block_bytes
    if arrangement.kind == "deepspeed":
        config = _deepspeed(arrangement.zero)
        bucket = int(config["reduce_bucket_size"]) * MASTER_BYTES * (2 if config.get("overlap_comm") else 1)
        if arrangement.zero < 3:
            return bucket
        width = (weights.frozen_bytes + weights.trainable_bytes) / weights.parameters["all"]
        live = min(int(config["stage3_max_live_parameters"]), weights.parameters["all"])
        return bucket + round(live * width)
    return 0


def _deepspeed(zero: int) -> dict[str, Any]:
    path = DEEPSPEED / f"zero{zero}.json"
    said = json.loads(path.read_text(encoding="utf-8"))["zero_optimization"] if path.is_file() else {}
    return {**BUCKET, **said}


Fits = Callable[[Arrangement], bool]


def what_fits(arrangement: Arrangement, batch: int, fits: Fits) -> list[Arrangement]:
    """The smallest changes of an arrangement that fit, by what they change; empty if nothing would help."""
    found = []
    for changes in (_smaller_batches, _checkpointed, _sharded, _more_gpus):
        candidate = next((other for other in changes(arrangement, batch) if fits(other)), None)
        if candidate is not None:
            found.append(candidate)
    if found:
        return found
    candidates = (
        smallest
        for shared in [*_sharded(arrangement, batch), arrangement]
        for wider in [shared, *_more_gpus(shared, batch)]
        for smallest in [*_smaller_batches(replace(wider, checkpointing=True), batch)]
    )
    return [candidate for candidate in [next(filter(fits, candidates), None)] if candidate is not None]


def _smaller_batches(arrangement: Arrangement, batch: int) -> Iterator[Arrangement]:
    share = batch // arrangement.gpus
    for size in range(arrangement.micro_batch - 1, 0, -1):
        if share % size == 0:
            yield replace(arrangement, micro_batch=size)


def _checkpointed(arrangement: Arrangement, _: int) -> Iterator[Arrangement]:
    if not arrangement.checkpointing:
        yield replace(arrangement, checkpointing=True)


def _sharded(arrangement: Arrangement, _: int) -> Iterator[Arrangement]:
    if arrangement.gpus > 1:
        for zero in (2, 3):
            if zero > arrangement.zero:
                yield replace(arrangement, kind="deepspeed", zero=zero)


def _more_gpus(arrangement: Arrangement, batch: int) -> Iterator[Arrangement]:
    """Sharded, more GPUs hold less each; otherwise only their micro-batches shrink."""
    gpus = arrangement.gpus * 2
    while gpus <= batch and batch % gpus == 0:
        kind = "deepspeed" if arrangement.kind == "single" else arrangement.kind
        zero = 2 if arrangement.kind == "single" else arrangement.zero
        yield replace(
            arrangement, kind=kind, zero=zero, gpus=gpus, micro_batch=min(arrangement.micro_batch, batch // gpus)
        )
        gpus *= 2
