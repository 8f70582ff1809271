"""Steps of the paper's model: tokens a second, MFU and memory beside the plan, and ways to compute them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from math import isfinite
from statistics import median
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.planned import Planned, Planner
from benchmarks.gpu.report import MEASURED, REHEARSAL, Bench, Check, Found, NotRunError
from benchmarks.gpu.samples import Objective, objective, options_of, pictures
from calm.model.attention import attending, use_plain_attention
from calm.model.build import Assembly, add_lora
from calm.model.modeling import IGNORED
from calm.model.settings import LoRATuning
from calm.params import Params
from calm.plan import Options, optimisation, plan
from calm.plan.shapes import STAGES, Lengths, add_adapters, checkpointing
from calm.training.loop.order import WHOLE, Part
from calm.training.loop.processes import Processes
from calm.training.loop.strategies import open_trainer
from calm.training.loop.throughput import GIB, machines
from calm.training.settings import Optimisation, Strategy

STEPS, VARIANTS, COMPILED, HOURS = "steps", "variants", "compiled", "hours"
EXACT, LAYERS = "float32 products in float32", "torch.compile, layer by layer"
AUTOCAST, EAGER = "adapters and MFAM in bfloat16 (autocast)", "attention not fused"
OTHER_OPERATIONS = (AUTOCAST, EAGER, LAYERS)  # than the plan counts: its least seconds are not theirs
NAMES = {"attributes": "U", "alignment": "G", "comments": "C", "scores": "S"}
VARIED, VARIED_BATCH, REHEARSED = "comments", 8, 2  # samples
TARGET = 0.45  # MFU in C and S
MEMORY = 0.10  # that the plan may be off by
SPARE_GIB = 3  # of the card, that no plan may use
SIDE = 96  # pixels at least: edits ask for 64 on the shorter side
RECOMPILED = 256  # times that torch may compile one function: once a layer is too often, but an answer

Context = Callable[[], AbstractContextManager[Any]]


class Repeated:
    """An objective whose every step is the first, its photographs read beforehand: what is timed is the card's work."""

    def __init__(self, of: Objective, options: Optimisation) -> None:
        self.of, self.options, self.model, self.parameters = of, options, of.model, of.parameters
        self._read: Any = of.read(0, WHOLE)

    def read(self, step: int, part: Part) -> Any:
        """As the first time."""
        return self._read

    def losses(self, step: int, part: Part = WHOLE, read: Any = None) -> dict[str, torch.Tensor]:
        """Of the first step."""
        return self.of.losses(0, WHOLE, self._read)


class SeenError(Exception):
    """What the language model is asked is known: it need not answer."""


def lengths(of: Repeated) -> Lengths:
    """Of the conversations of a micro-batch, as padded; the language model does not read them."""
    seen: dict[str, torch.Tensor] = {}

    def look(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        seen.update(inputs)
        raise SeenError

    hook = of.model.register_forward_pre_hook(look, with_kwargs=True)
    with suppress(SeenError), torch.no_grad():
        of.losses(0)
    hook.remove()
    rows, length = seen["input_ids"].shape
    answer = round((seen["labels"] != IGNORED).sum().item() / rows)
    return Lengths(length - seen["visual_tokens"].shape[1] - answer, answer)


@dataclass(frozen=True)
class Timed:
    """A micro-batch.

    Attributes:
        seconds: of loss and gradients.
        update_seconds: of clipping and Adam, once a step.
        memory: most bytes at once, with gradients and Adam's moments there; 0 on a processor, which does not say.
    """

    seconds: float
    update_seconds: float
    memory: int
    loss: float


@dataclass
class Model:
    """The paper's model on the card, and in shapes for the plan.

    Attributes:
        assembly: None where nothing is measured.
    """

    params: Params
    planner: Planner
    assembly: Assembly | None

    def adapt(self) -> None:
        """Put the adapters of C and S into both."""
        add_adapters(self.planner.shapes, self.params)
        if self.assembly is not None and isinstance(self.params.finetune.tuning, LoRATuning):
            add_lora(self.assembly.model, self.params.finetune.tuning, self.params.seed)

    def repeated(self, stage: str, micro: int, *, padded: bool = True) -> Repeated:
        """A micro-batch of a stage."""
        assert self.assembly is not None
        self.assembly.model.zero_grad(set_to_none=True)  # of a row that ran out of memory
        use_plain_attention(self.assembly.model)
        options = options_of(self.params, stage, micro, 1)
        shown = pictures(2 * micro, max(SIDE, self.assembly.preprocessing.size))
        return Repeated(objective(stage, self.assembly, self.params, shown, options, padded=padded), options)


def steps(bench: Bench, model: Model) -> None:
    """A row for every stage with gradient checkpointing and without; the adapters are in the model afterwards."""
    for stage in STAGES:
        if stage == STAGES[2]:
            model.adapt()
        for checkpointed in (True, False):
            name = f"{NAMES[stage]}, {'gradient checkpointing' if checkpointed else 'activations kept'}"
            share = optimisation(model.params, stage).batch_size // machines().paper.gpus
            most = REHEARSED if bench.where == REHEARSAL else share
            micro = model.planner.largest(stage, usable(bench), most, checkpointed=checkpointed)
            if not micro:
                bench.row(STEPS, name, _nothing_fits)
                continue
            expected = model.planner.at(stage, micro, model.planner.assumed(stage), checkpointed=checkpointed)
            measure = partial(_step, bench, model, stage, micro, checkpointed)
            bench.row(STEPS, name, measure, expected.values, need=5 + 8 * expected.seconds)


def _nothing_fits() -> Found:
    raise NotRunError("by the plan not even one sample fits")


def usable(bench: Bench) -> float:
    """Bytes of the card that a plan may use."""
    total = bench.gpu.memory_gib * GIB
    if bench.on_card:
        total = min(total, torch.cuda.get_device_properties(bench.device).total_memory)
    return total - SPARE_GIB * GIB


def _step(bench: Bench, model: Model, stage: str, micro: int, checkpointed: bool) -> Found:
    """At that micro-batch, or, where the plan was too hopeful, at half of it."""
    while True:
        try:
            return _measured(bench, model, stage, micro, checkpointed)
        except torch.OutOfMemoryError:
            if micro == 1:
                raise
            micro //= 2
        bench.clear()


def _measured(bench: Bench, model: Model, stage: str, micro: int, checkpointed: bool) -> Found:
    of = model.repeated(stage, micro)
    words = lengths(of)
    expected = model.planner.at(stage, micro, words, checkpointed=checkpointed)
    with checkpointing(of.of.assembly.model, checkpointed):
        timed = time_steps(bench, of)
    values = _values(bench, expected, timed, optimisation(model.params, stage).batch_size) | _lengths(words)
    checks = [Check("the loss is a number", float(isfinite(timed.loss)), 1, least=True)]
    if timed.memory:
        off = abs(timed.memory / expected.memory - 1)
        checks.append(Check("memory beside the plan, relative", off, MEMORY))
    if bench.on_card and stage in STAGES[2:] and not checkpointed:
        checks.append(Check("MFU", values["mfu"], TARGET, least=True))
    return Found(values, checks)


def _lengths(words: Lengths) -> dict[str, int]:
    return {"prompt": words.prompt, "answer": words.answer}


def _values(bench: Bench, expected: Planned, timed: Timed, batch: int) -> dict[str, Any]:
    """Figures of a whole step on one of the paper's GPUs: its share of the batch in rounds, and one update."""
    micro = expected.micro_batch
    rounds = max(1, batch // machines().paper.gpus // micro)
    seconds = timed.seconds + timed.update_seconds / rounds
    return {
        "micro_batch": micro,
        "tokens_per_sample": expected.tokens,
        "loss": round(timed.loss, 4),
        "seconds": round(timed.seconds, 4),
        "update_seconds": round(timed.update_seconds, 4),
        "tokens_per_second": round(micro * expected.tokens / seconds, 1),
        "mfu": float(f"{expected.flops / seconds / (bench.gpu.tflops * 1e12):.4g}"),
        "memory_gib": round(timed.memory / GIB, 2) or None,
        "planned_memory_gib": round(expected.memory / GIB, 2),
        "planned_seconds": round(expected.seconds, 4),
        "least_seconds": round(expected.least_seconds, 4),
        "float32_products": torch.get_float32_matmul_precision(),
    }


def time_steps(bench: Bench, of: Repeated, around: Context = nullcontext) -> Timed:
    """Two steps of two rounds by calm's own trainer: the first round warms up, the second step needs most memory."""
    trainer = open_trainer(of, of.options, Strategy(kind="single"), Processes(), None)
    rounds, loss, update = [], 0.0, 0.0
    for step in range(2):
        if bench.on_card:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            bench.wait()
            started = time.perf_counter()
            with around():
                losses = trainer.learn(step, WHOLE, None, last=True)
            bench.wait()
            rounds.append(time.perf_counter() - started)
            loss = losses["loss"].item()
            del losses
        started = time.perf_counter()
        trainer.update(1e-6)
        bench.wait()
        update = time.perf_counter() - started
    memory = torch.cuda.max_memory_allocated() if bench.on_card else 0
    return Timed(median(rounds[1:]), update, memory, loss)


def variants(bench: Bench, model: Model) -> None:
    """Comments, activations kept if they fit: by attention and number format."""
    ways: dict[str, tuple[bool, Context]] = {
        "as calm runs": (True, nullcontext),
        EXACT: (True, _exact),
        AUTOCAST: (True, partial(_autocast, bench)),
        "no padding: torch's fused attention": (False, nullcontext),
        "no padding: FlashAttention": (False, partial(_kernels, SDPBackend.FLASH_ATTENTION)),
        "no padding: cuDNN's attention": (False, partial(_kernels, SDPBackend.CUDNN_ATTENTION)),
        "memory-efficient attention": (True, partial(_kernels, SDPBackend.EFFICIENT_ATTENTION)),
        EAGER: (True, partial(_eager, model)),
    }
    _varied(bench, model, VARIANTS, ways)


def compiled(bench: Bench, model: Model) -> None:
    """Comments with the language model's layers compiled; the adapters have to be there."""
    if model.assembly is None:
        _varied(bench, model, COMPILED, {LAYERS: (True, nullcontext)})
        return
    with compiling(bench, model.assembly.model):
        _varied(bench, model, COMPILED, {LAYERS: (True, nullcontext)})


def _varied(bench: Bench, model: Model, section: str, ways: dict[str, tuple[bool, Context]]) -> None:
    most = REHEARSED if bench.where == REHEARSAL else VARIED_BATCH
    micro, checkpointed = model.planner.largest(VARIED, usable(bench), most, checkpointed=False), False
    if micro < 2:
        checkpointed = True
        micro = max(1, model.planner.largest(VARIED, usable(bench), most, checkpointed=True))
    words = model.planner.assumed(VARIED)
    for name, (padded, around) in ways.items():
        expected = model.planner.at(VARIED, micro, words, checkpointed=checkpointed, exact=name == EXACT)
        measure = partial(_variant, bench, model, micro, checkpointed, padded, around)
        planned = expected.values
        if name in OTHER_OPERATIONS:
            del planned["mfu_at_most"], planned["least_seconds"]
        bench.row(section, name, measure, planned, need=5 + 6 * expected.seconds)


def _variant(bench: Bench, model: Model, micro: int, checkpointed: bool, padded: bool, around: Context) -> Found:
    of = model.repeated(VARIED, micro, padded=padded)
    words = lengths(of)
    expected = model.planner.at(VARIED, micro, words, checkpointed=checkpointed)
    with checkpointing(of.of.assembly.model, checkpointed):
        timed = time_steps(bench, of, around)
    checks = [Check("the loss is a number", float(isfinite(timed.loss)), 1, least=True)]
    return Found(_values(bench, expected, timed, optimisation(model.params, VARIED).batch_size), checks)


@contextmanager
def _exact() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _autocast(bench: Bench) -> AbstractContextManager[Any]:
    assert bench.device is not None
    return torch.autocast(bench.device.type, torch.bfloat16)


def _kernels(first: SDPBackend) -> AbstractContextManager[Any]:
    """One kernel for the language model and the encoder; float32 attention of the Q-formers has another."""
    return sdpa_kernel([first, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True)


def _eager(model: Model) -> AbstractContextManager[Any]:
    assert model.assembly is not None
    return attending(model.assembly.model.language_model, "eager")


@contextmanager
def compiling(bench: Bench, model: Any) -> Iterator[None]:
    """The language model's layers compiled. On a processor they are traced alone: there may be no compiler."""
    layers = model.language_model.model.layers
    torch._dynamo.config.recompile_limit = RECOMPILED
    for layer in layers:
        layer.compile(backend="inductor" if bench.on_card else "eager", dynamic=False)
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
        torch._dynamo.reset()


def hours(bench: Bench, params: Params) -> None:
    """The paper's run on the paper's GPUs at the MFU measured here, a row for each stage."""
    said, table = plan(params, Options()), machines()
    rate = table.gpu(table.paper.gpu).tflops * 1e12 * table.paper.gpus
    for stage in said.stages:
        mine = [
            row
            for row in bench.report.rows
            if (row["where"], row["section"], row["status"]) == (bench.where, STEPS, MEASURED)
            and row["name"].startswith(f"{NAMES[stage.name]}, ")
        ]
        pflops = round(stage.flops / 1e15, 3)
        planned = {"hours": round(stage.hours, 2), "steps": stage.steps, "pflops_per_step": pflops}
        bench.row(HOURS, NAMES[stage.name], partial(_hours, mine, stage.flops * stage.steps / rate / 3600), planned)


def _hours(rows: list[dict[str, Any]], at_peak: float) -> Found:
    """By the row of the best MFU."""
    if not rows:
        raise NotRunError("no step of this stage was measured")
    best = max(rows, key=lambda row: row["values"]["mfu"])
    mfu = best["values"]["mfu"]
    return Found({"by": best["name"], "mfu": mfu, "hours": float(f"{at_peak / mfu:.4g}")})
