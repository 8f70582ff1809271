"""What `calm plan` says of one micro-batch on one card: memory, FLOPs, seconds at its MFU, and the least seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.machine import Machine, Operations
from calm.model.modeling import CalmForConditionalGeneration
from calm.params import Params
from calm.plan import encodes
from calm.plan.memory import Arrangement, Weights, on_each_gpu
from calm.plan.shapes import Lengths, checkpointing, open_stage, step_costs
from calm.training.loop.throughput import GIB, GPU, machines

TF32 = 0.5  # of the peak in bfloat16, by the data sheets of all GPUs in the table
SIZES = (32, 24, 16, 12, 8, 6, 4, 3, 2, 1)  # micro-batches that are tried


@dataclass(frozen=True)
class Planned:
    """One micro-batch of a stage.

    Attributes:
        flops: nothing counted twice.
        computed: FLOPs, with what gradient checkpointing computes again.
        seconds: as `calm plan` has them, at its assumed MFU.
        least_seconds: every operation at the card's peak or its bandwidth; products in float32 count as TF32.
        mfu_at_most: share of the peak, if no operation took longer than that.
        memory: bytes: weights, gradients, Adam's moments, activations.
    """

    micro_batch: int
    tokens: int
    flops: int
    computed: int
    seconds: float
    least_seconds: float
    mfu_at_most: float
    memory: int

    @property
    def values(self) -> dict[str, Any]:
        """For a row."""
        return {
            "micro_batch": self.micro_batch,
            "tokens_per_sample": self.tokens,
            "tflops": round(self.flops / 1e12, 2),
            "seconds": round(self.seconds, 4),
            "least_seconds": round(self.least_seconds, 4),
            "mfu_at_most": round(self.mfu_at_most, 3),
            "memory_gib": round(self.memory / GIB, 2),
        }


@dataclass(frozen=True)
class Planner:
    """Plans of one model in shapes, for one kind of GPU."""

    params: Params
    shapes: CalmForConditionalGeneration
    gpu: GPU
    traces: dict[tuple[object, ...], Operations] = field(default_factory=dict)  # a second each

    def at(self, stage: str, micro: int, lengths: Lengths, *, checkpointed: bool, exact: bool = False) -> Planned:
        """The plan of a micro-batch.

        Args:
            exact: float32 products are computed in float32, not as TF32.
        """
        plain = self._trace(stage, micro, lengths, False)
        cost = self._trace(stage, micro, lengths, True) if checkpointed else plain
        peak, bandwidth = self.gpu.tflops * 1e12, self.gpu.bandwidth_gb * 1e9
        rates = {torch.bfloat16: peak, torch.float32: self.gpu.tflops_float32 * 1e12 if exact else peak * TF32}
        least = Machine(rates, bandwidth, bandwidth, 0.0).roofline(cost)
        config = self.shapes.config
        visual = config.queries if stage == "attributes" else config.vision_tokens
        return Planned(
            micro_batch=micro,
            tokens=visual + lengths.prompt + lengths.answer,
            flops=plain.flops,
            computed=cost.flops,
            seconds=cost.flops / (peak * machines().mfu),
            least_seconds=least,
            mfu_at_most=plain.flops / least / peak,
            memory=self._memory(stage, micro, cost.peak, checkpointed),
        )

    def largest(self, stage: str, usable: float, most: int, *, checkpointed: bool) -> int:
        """The largest micro-batch whose planned memory is at most `usable` bytes; 0 if none is."""
        lengths = self.assumed(stage)
        one, two = (self._trace(stage, samples, lengths, checkpointed).peak for samples in (1, 2))
        fitting = (
            size
            for size in SIZES
            if size <= most and self._memory(stage, size, one + (size - 1) * (two - one), checkpointed) <= usable
        )
        return next(fitting, 0)

    @staticmethod
    def assumed(stage: str) -> Lengths:
        """Of a sample's words, as `calm plan` assumes them."""
        length = machines().lengths[stage]
        return Lengths(length.prompt, length.answer)

    def _trace(self, stage: str, micro: int, lengths: Lengths, checkpointed: bool) -> Operations:
        if (known := self.traces.get((stage, micro, lengths, checkpointed))) is not None:
            return known
        questions = micro if stage == "attributes" else 0
        with checkpointing(self.shapes, checkpointed):
            encode = encodes(self.params, stage)
            cost = step_costs(
                self.shapes, stage, self.params, micro, lengths, questions, encode=encode, kind=Operations
            )
        assert isinstance(cost, Operations)
        self.traces[stage, micro, lengths, checkpointed] = cost
        return cost

    def _memory(self, stage: str, micro: int, activations: int, checkpointed: bool) -> int:
        open_stage(self.shapes, stage, self.params)
        alone = Arrangement("single", 1, 0, micro, checkpointed)
        return on_each_gpu(Weights.of(self.shapes, {}), alone, activations).total
