"""GPUs, their peaks and prices, and the assumptions of `calm plan`: machines.yaml, checked."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field
from ruamel.yaml import YAML

from calm.settings import Positive, PositiveInt, Section, Share, checked

FILE = Path(__file__).with_name("machines.yaml")
GIB = 2**30


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
