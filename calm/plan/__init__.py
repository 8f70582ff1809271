"""`calm plan`: what a profile would take, computed from shapes alone, before a GPU is rented.

    made = plan(params, Options())
    print(made.problems)

FLOPs and activations come from running the profile's own model and losses on the meta device (`shapes.py`,
`trace.py`), the rest of the memory from what the strategies keep (`memory.py`), hours from FLOPs and an assumed MFU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch

from calm.model.configuration import CalmConfig
from calm.model.modeling import CalmForConditionalGeneration
from calm.params import Params
from calm.plan.memory import Arrangement, Memory, Weights, on_each_gpu, what_fits
from calm.plan.shapes import (
    META,
    STAGES,
    Lengths,
    Trace,
    add_adapters,
    asked,
    build,
    checkpointing,
    open_stage,
    read_prompts,
    step_costs,
)
from calm.training.loop.throughput import GIB, Machines, machines
from calm.training.settings import Optimisation

__all__ = ["Options", "Plan", "PlannedStage", "plan"]


@dataclass(frozen=True)
class Options:
    """The machine. None: as params.yaml or the table of machines says.

    Attributes:
        gpus: on all nodes together.
        mfu: share of the GPUs' peak that is reached, 0 to 1; what gradient checkpointing computes twice takes its time
            at that rate too.
        price_per_hour: of one GPU, in dollars.
    """

    gpu: str | None = None
    gpus: int | None = None
    mfu: float | None = None
    price_per_hour: float | None = None


@dataclass(frozen=True)
class PlannedStage:
    """One training run.

    Attributes:
        tokens: of one sample in the language model, visual ones included.
        flops: of one optimisation step of the whole batch, nothing computed twice.
        recomputed: FLOPs of a step that gradient checkpointing adds.
        patches: of one photograph in the encoder; 0 where its features are kept, or it has none.
        memory_otherwise: with gradient checkpointing where there is none, and the other way round.
        fits: whether the memory of the GPU is enough.
        remedies: arrangements that would fit, if this one does not.
    """

    name: str
    weights: Weights
    batch: int
    lengths: Lengths
    tokens: int
    patches: int
    flops: int
    recomputed: int
    steps: int
    hours: float
    price: float
    arrangement: Arrangement
    memory: Memory
    memory_otherwise: Memory
    fits: bool
    remedies: Sequence[Arrangement]


@dataclass(frozen=True)
class Judged:
    """One task on one GPU.

    Attributes:
        flops: of reading one prompt with its photograph.
        read_hours: encoder, MFAM and prompts.
        write_hours: answers, token by token: every step reads the weights and the cache once.
        memory_gib: weights, the cache of one batch, activations.
    """

    task: str
    of: str
    items: int
    batch: int
    flops: int
    read_hours: float
    write_hours: float
    price: float
    memory_gib: float

    @property
    def hours(self) -> float:
        """Both together."""
        return self.read_hours + self.write_hours


@dataclass(frozen=True)
class Plan:
    """All training runs of a profile, and its large evaluations on one GPU."""

    profile: str
    gpu: str
    gpus: int
    mfu: float
    price_per_hour: float
    memory_gib: float  # that a run may use on each GPU
    stages: Sequence[PlannedStage]
    evaluations: Sequence[Judged]

    @property
    def problems(self) -> list[str]:
        """Why this plan cannot run, stage by stage, with what would fit."""
        return [_problem(stage, self) for stage in self.stages if not stage.fits]

    def hours(self, stages: Iterable[str]) -> float:
        """Of these stages together."""
        wanted = set(stages)
        return sum(stage.hours for stage in self.stages if stage.name in wanted)


class Traces:
    """Costs of any number of samples and questions, by adding up what one more of each takes.

    Args:
        measure: of (samples, questions, whether checkpointing is on).
    """

    def __init__(self, measure: Callable[[int, int, bool], Trace]) -> None:
        self.measure = cache(measure)

    def at(self, samples: int, questions: float, *, checkpointed: bool) -> tuple[int, int]:
        """FLOPs, bytes at the peak."""
        some = 1 if questions else 0
        one, more = self.measure(1, some, checkpointed), self.measure(2, some, checkpointed)
        asking = self.measure(1, 2, checkpointed) if some else one

        def total(what: str) -> int:
            first, second, third = (getattr(cost, what) for cost in (one, more, asking))
            return round(first + (samples - 1) * (second - first) + (questions - some) * (third - first))

        return total("flops"), total("peak")


def plan(params: Params, options: Options) -> Plan:
    """Plan a profile.

    Raises:
        ValueError: an unknown GPU, an MFU outside of 0 to 1, or a batch that the GPUs cannot share evenly.
    """
    table = machines()
    name = options.gpu or table.default_gpu
    gpu = table.gpu(name)
    mfu = table.mfu if options.mfu is None else options.mfu
    if not 0 < mfu <= 1:
        raise ValueError(f"an MFU is a share of the peak, above 0 and at most 1, found {mfu}")
    price = gpu.price_per_hour if options.price_per_hour is None else options.price_per_hour
    usable = gpu.memory_gib - table.reserve_gib
    dtype = torch.float32 if params.runtime.dtype == "float32" else torch.bfloat16
    model = build(params, dtype, fused=True)
    rate = (gpu.tflops if dtype == torch.bfloat16 else gpu.tflops_float32) * 1e12 * mfu
    evaluations = [
        judge(model, task, params, table, rate=rate, bandwidth=gpu.bandwidth_gb * 1e9, price=price)
        for task in table.evaluation
    ]
    stages = []
    for stage in STAGES:
        if stage == STAGES[2]:
            add_adapters(model, params)
        stages.append(_stage(model, stage, params, options, table, rate=rate, price=price, usable=usable * GIB))
    gpus = stages[0].arrangement.gpus
    return Plan(params.profile, name, gpus, mfu, price, usable, stages, evaluations)


def optimisation(params: Params, stage: str) -> Optimisation:
    """A stage's section of params.yaml."""
    section: Optimisation = getattr(params.pretrain if stage in STAGES[:2] else params.finetune, stage)
    return section


def encodes(params: Params, stage: str) -> bool:
    """Whether a step of the stage waits for the encoder: features that are kept are computed once."""
    return not params.pretrain.attributes.views if stage == "attributes" else not params.runtime.keep_features


def _stage(
    model: CalmForConditionalGeneration,
    stage: str,
    params: Params,
    options: Options,
    table: Machines,
    *,
    rate: float,
    price: float,
    usable: float,
) -> PlannedStage:
    run = optimisation(params, stage)
    length = table.lengths[stage]
    lengths = Lengths(length.prompt, length.answer)
    arrangement = Arrangement.of(params.strategy, run.batch_size, options.gpus)

    total = _counted(model, stage, params, lengths)
    open_stage(model, stage, params)
    parts = {"encoder": model.vision_tower, "mfam": model.mfam, "language": model.language_model}
    weights = Weights.of(model, parts | {"score head": model.score_head})

    def memory(other: Arrangement) -> Memory:
        return on_each_gpu(weights, other, total(other.micro_batch, other.checkpointing)[1])

    def fits(other: Arrangement) -> bool:
        return memory(other).total <= usable

    flops = total(run.batch_size, False)[0]
    recomputed = total(run.batch_size, True)[0] - flops
    computed = flops + recomputed if arrangement.checkpointing else flops
    hours = computed * run.steps / (rate * arrangement.gpus) / 3600
    visual = model.config.queries if stage == "attributes" else model.config.vision_tokens
    return PlannedStage(
        name=stage,
        weights=weights,
        batch=run.batch_size,
        lengths=lengths,
        tokens=visual + lengths.prompt + lengths.answer,
        patches=_patches(model.config) if encodes(params, stage) else 0,
        flops=flops,
        recomputed=recomputed,
        steps=run.steps,
        hours=hours,
        price=hours * arrangement.gpus * price,
        arrangement=arrangement,
        memory=memory(arrangement),
        memory_otherwise=memory(replace(arrangement, checkpointing=not arrangement.checkpointing)),
        fits=fits(arrangement),
        remedies=[] if fits(arrangement) else what_fits(arrangement, run.batch_size, fits),
    )


def _counted(
    model: CalmForConditionalGeneration, stage: str, params: Params, lengths: Lengths
) -> Callable[[int, bool], tuple[int, int]]:
    """FLOPs and bytes of activations of a step of so many samples, with gradient checkpointing or without."""

    def measure(samples: int, questions: int, checkpointed: bool) -> Trace:
        with checkpointing(model, checkpointed):
            return step_costs(model, stage, params, samples, lengths, questions, encode=encodes(params, stage))

    def total(samples: int, checkpointed: bool) -> tuple[int, int]:
        questions = asked(params, samples) if stage == "attributes" else 0.0
        return traces.at(samples, questions, checkpointed=checkpointed)

    traces = Traces(measure)
    return total


def _patches(config: CalmConfig) -> int:
    """Tokens of one photograph in a transformer encoder; 0 for others."""
    patch: int = getattr(config.vision_config, "patch_size", 0)
    return (config.image_size // patch) ** 2 if patch else 0


def _problem(stage: PlannedStage, plan: Plan) -> str:
    needed = stage.memory.total / GIB
    said = f"{stage.name}: {needed:.1f} GiB on each of {stage.arrangement}; {plan.memory_gib:.0f} GiB are usable."
    if not stage.remedies:
        return f"{said} Nothing that calm can change would fit: take a GPU with more memory, or LoRA for full tuning"
    return f"{said} Would fit: " + "; or ".join(str(other) for other in stage.remedies)


def judge(
    model: CalmForConditionalGeneration,
    task: str,
    params: Params,
    table: Machines,
    *,
    rate: float,
    bandwidth: float,
    price: float,
) -> Judged:
    """Plan a task of `table.evaluation` with the batch size of params.

    Args:
        rate: FLOPs a second that prompts are read with.
        bandwidth: of the memory, bytes a second.
        price: of an hour.
    """
    test, batch = table.evaluation[task], params.evaluation.batch_size
    lengths = Lengths(test.prompt, test.answer)
    one, two = (read_prompts(model, samples, lengths) for samples in (1, 2))
    flops = two.flops - one.flops
    seconds_reading = test.items * flops / rate
    # The first token of an answer comes with the prompt.
    steps = -(-test.items // batch) * (test.answer - 1)
    language = sum(p.nbytes for p in model.language_model.parameters())
    cache = batch * _cache_bytes(model, model.config.vision_tokens + test.prompt + test.answer)
    seconds_writing = steps * (language + cache) / (bandwidth * table.bandwidth_share)
    weights = sum(p.nbytes for p in model.parameters())
    peak = one.peak + (batch - 1) * (two.peak - one.peak)
    hours = (seconds_reading + seconds_writing) / 3600
    return Judged(
        task=task,
        of=test.of,
        items=test.items,
        batch=batch,
        flops=flops,
        read_hours=seconds_reading / 3600,
        write_hours=seconds_writing / 3600,
        price=hours * price,
        memory_gib=(weights + cache + peak) / GIB,
    )


def _cache_bytes(model: CalmForConditionalGeneration, length: int) -> int:
    """Keys and values of one sample."""
    config = model.config.text_config
    width = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
    element = torch.empty((), dtype=model.language_model.dtype, device=META).element_size()
    layers: int = config.num_hidden_layers
    return 2 * layers * length * width * element
