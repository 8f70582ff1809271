"""How fast a run learns: samples, tokens and FLOPs a second, and the share of the processor's peak that this is (MFU).

Peaks of GPUs, their prices, and the assumptions of `calm plan` are in machines.yaml, checked here. Times are no
results: they go to the terminal and into a file beside the run's state, never into an output.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
from pydantic import Field
from ruamel.yaml import YAML
from torch import nn

from calm.io import write_json
from calm.settings import Positive, PositiveInt, Section, Share, checked

FILE = Path(__file__).with_name("machines.yaml")
GIB = 2**30
GEMM = 768  # side of the matrices that an unknown processor's peak is measured with
GEMM_RUNS = 5


class GPU(Section):
    """One kind of GPU: peaks (10^12 operations a second), memory, bandwidth, and its price in dollars an hour."""

    memory_gib: Positive
    tflops: Positive
    tflops_float32: Positive
    bandwidth_gb: Positive
    price_per_hour: Annotated[float, Field(ge=0)]


class SampleLength(Section):
    """Tokens beside the visual ones, padding included; the answer with its end."""

    prompt: PositiveInt
    answer: PositiveInt


class TestSet(SampleLength):
    """A test set of the paper."""

    items: PositiveInt
    of: str


class Paper(Section):
    """What the paper states of its own runs."""

    gpus: PositiveInt
    gpu: str
    pretrain_hours: Positive
    finetune_hours: Positive


class Machines(Section):
    """The whole file."""

    dated: object
    gpus: dict[str, GPU]
    default_gpu: str
    mfu: Share
    bandwidth_share: Share
    reserve_gib: Positive
    lengths: dict[str, SampleLength]
    evaluation: dict[str, TestSet]
    paper: Paper

    def gpu(self, name: str) -> GPU:
        """A GPU by name.

        Raises:
            ValueError: it is not in the table.
        """
        if name not in self.gpus:
            raise ValueError(f"there is no GPU '{name}' in {FILE.name}; there are: {', '.join(self.gpus)}")
        return self.gpus[name]

    def of_device(self, device: str) -> GPU | None:
        """The GPU that a driver calls by a longer name ("NVIDIA A100-SXM4-80GB"); None if it is not in the table."""
        words = set(re.split(r"[\s-]+", device.upper()))
        named = (gpu for name, gpu in self.gpus.items() if set(name.upper().split("-")) <= words)
        return next(named, None)


@cache
def machines() -> Machines:
    """The table."""
    return checked(Machines, YAML(typ="safe").load(FILE.read_text(encoding="utf-8")), FILE.name)


@dataclass(frozen=True)
class Throughput:
    """Figures of one run. The first step, in which libraries still settle, is not timed if there are others.

    Attributes:
        tokens_per_second: of the language model, visual tokens and padding included.
        flops_per_second: of matrix products and convolutions; attention's scores and everything that gradient
            checkpointing computes twice are not counted.
        padding: mean share of a step's tokens that is padding; None where no step says.
        peak: FLOPs a second that the processors of all processes could do, and where this is known from.
    """

    title: str
    steps: int
    seconds: float
    processes: int
    samples_per_second: float
    tokens_per_second: float
    flops_per_second: float
    padding: float | None
    peak: float
    peak_source: str

    @property
    def mfu(self) -> float | None:
        """Share of the peak that is used; None of a peak that was measured on a busy machine and is too low."""
        share = self.flops_per_second / self.peak
        return share if share <= 1 else None

    def __str__(self) -> str:
        padding = "" if self.padding is None else f" ({self.padding:.1%} padding)"
        peak = f"of {self.peak / 1e9:.3g} GFLOP/s ({self.peak_source})"
        used = f"MFU {self.mfu:.2f} {peak}" if self.mfu is not None else f"MFU unknown: more than all {peak}, busy then"
        return (
            f"{self.title}: {self.steps} steps, {self.samples_per_second:.3g} samples/s, "
            f"{self.tokens_per_second:.3g} tokens/s{padding}, {self.flops_per_second / 1e9:.3g} GFLOP/s, "
            f"{used}"
        )


class Meter:
    """Counts what passes through a model while it is watched."""

    def __init__(self, model: nn.Module) -> None:
        self.flops = self.tokens = self.steps = 0
        self.padding: list[float] = []
        self.timed_from = (0.0, 0, 0, 0)  # seconds, steps, tokens, FLOPs
        self._started = time.perf_counter()
        self._hooks = [module.register_forward_hook(self._count) for module in _multiplying(model)]
        embedding: Any = getattr(model, "get_input_embeddings", None)
        if embedding is not None:
            self._hooks.append(embedding().register_forward_hook(self._count_tokens))

    def step(self, padding: float | None = None) -> None:
        """One optimisation step has ended, in which so much of the tokens was padding."""
        self.steps += 1
        if padding is not None:
            self.padding.append(padding)
        if self.steps == 1:
            self.timed_from = (time.perf_counter() - self._started, 1, self.tokens, self.flops)

    def close(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def read(self, title: str, batch_size: int, processes: int, device: torch.device, dtype: torch.dtype) -> Throughput:
        """The figures so far; every process counts its own equal share."""
        skipped = self.timed_from if self.steps > 1 else (0.0, 0, 0, 0)
        seconds = time.perf_counter() - self._started - skipped[0]
        steps = self.steps - skipped[1]
        peak, source = peak_flops(device, dtype)
        return Throughput(
            title=title,
            steps=self.steps,
            seconds=seconds,
            processes=processes,
            samples_per_second=steps * batch_size / seconds,
            tokens_per_second=(self.tokens - skipped[2]) * processes / seconds,
            flops_per_second=(self.flops - skipped[3]) * processes / seconds,
            padding=fmean(self.padding) if self.padding else None,
            peak=peak * processes,
            peak_source=source,
        )

    def _count(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if torch._C._current_graph_task_id() != -1:  # within a backward pass: gradient checkpointing's second time
            return
        # Backward: as much for the gradient of the input, and of the weight, where they have one.
        learned = torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters(recurse=False))
        passed = torch.is_grad_enabled() and any(isinstance(x, torch.Tensor) and x.requires_grad for x in inputs)
        self.flops += (1 + learned + passed) * _forward_flops(module, output)

    def _count_tokens(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.tokens += inputs[0].numel()


@contextmanager
def measured(
    title: str, model: nn.Module, batch_size: int, processes: int, path: Path | None
) -> Iterator[Callable[[float | None], None]]:
    """Yields what to call after every step, with the share of its tokens that was padding, if known.

    At the end, also a bad one, figures are told and written to `path`.

    Args:
        path: None: nothing is told, as another process does it.
    """
    meter = Meter(model)
    try:
        yield meter.step
    finally:
        meter.close()
        if path is not None and meter.steps:
            device = next(model.parameters(), torch.empty(0)).device
            found = meter.read(title, batch_size, processes, device, _dtype(model))
            print(found, file=sys.stderr)
            with suppress(OSError):  # on a full disk the run's own error is the one to see
                write_json(path, {**asdict(found), "mfu": found.mfu})


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Peak of one device in FLOPs a second, and its source: the table of machines, else a measured product."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        gpu = machines().of_device(name)
        if gpu is not None:
            return (gpu.tflops if dtype == torch.bfloat16 else gpu.tflops_float32) * 1e12, f"data sheet of {name}"
    product = f"{GEMM}x{GEMM} matrices in {str(dtype).split('.')[-1]}, {torch.get_num_threads()} threads"
    return gemm_flops(device, dtype), f"measured product of {product}"


@cache
def gemm_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of the fastest of a few products of square matrices, by the threads that are set at first."""
    matrix = torch.ones(GEMM, GEMM, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(GEMM_RUNS):
        started = time.perf_counter()
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * GEMM**3 / best


def _multiplying(model: nn.Module) -> Iterator[nn.Module]:
    yield from (module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d))


def _forward_flops(module: nn.Module, output: torch.Tensor) -> int:
    """A multiplication and an addition are two."""
    if isinstance(module, nn.Linear):
        return 2 * output.numel() * module.in_features
    assert isinstance(module, nn.Conv2d)
    return 2 * output.numel() * module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]


def _dtype(model: nn.Module) -> torch.dtype:
    """Number format of most weights."""
    counts: dict[torch.dtype, int] = {}
    for parameter in model.parameters():
        counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)
