"""A plan as tables for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from calm.plan import Plan, PlannedStage
from calm.plan.memory import Memory
from calm.plan.shapes import STAGES
from calm.training.loop.throughput import GIB, Machines, machines

MEMORY = ("weights", "gradients", "optimizer", "activations", "buffers", "total")
PHASES = {"pre-training": STAGES[:2], "fine-tuning": STAGES[2:]}


def render(plan: Plan) -> Group:
    """All tables and notes."""
    table = machines()
    title = f"{plan.profile}: {plan.gpus}x {plan.gpu}, MFU {plan.mfu:g}, {plan.price_per_hour:g} $ an hour and GPU"
    return Group(
        Text(title, style="bold"),
        _parameters(plan),
        _work(plan),
        _memory(plan),
        _evaluations(plan),
        Text("\n".join(_notes(plan, table))),
    )


def to_json(plan: Plan) -> dict[str, Any]:
    """Everything that the tables say, in plain units: FLOPs, bytes, hours, dollars."""
    table = machines()
    return {
        "profile": plan.profile,
        "gpu": plan.gpu,
        "gpus": plan.gpus,
        "mfu": plan.mfu,
        "price_per_hour": plan.price_per_hour,
        "usable_bytes": round(plan.memory_gib * GIB),
        "stages": {stage.name: _stage_json(stage) for stage in plan.stages},
        "phases": {
            phase: {"hours": plan.hours(stages), "paper_hours": hours} for phase, stages, hours in _phases(table)
        },
        "evaluations": {judged.task: {**vars(judged), "hours": judged.hours} for judged in plan.evaluations},
        "table": str(table.dated),
        "problems": plan.problems,
    }


def _stage_json(stage: PlannedStage) -> dict[str, Any]:
    return {
        "parameters": dict(stage.weights.parameters),
        "tokens_per_sample": stage.tokens,
        "patches_per_sample": stage.patches,
        "batch": stage.batch,
        "flops_per_step": stage.flops,
        "flops_recomputed": stage.recomputed,
        "steps": stage.steps,
        "hours": stage.hours,
        "price": stage.price,
        "arrangement": vars(stage.arrangement),
        "memory": _memory_json(stage.memory),
        "memory_with_checkpointing_changed": _memory_json(stage.memory_otherwise),
        "fits": stage.fits,
        "would_fit": [vars(other) for other in stage.remedies],
    }


def _memory_json(memory: Memory) -> dict[str, int]:
    return {name: getattr(memory, name) for name in MEMORY}


def _phases(table: Machines) -> Iterator[tuple[str, tuple[str, ...], float]]:
    paper = (table.paper.pretrain_hours, table.paper.finetune_hours)
    for (phase, stages), hours in zip(PHASES.items(), paper, strict=True):
        yield phase, stages, hours


def _parameters(plan: Plan) -> Table:
    return _grid(
        "parameters",
        [stage.name for stage in plan.stages],
        {
            part: [f"{stage.weights.parameters[part]:,}" for stage in plan.stages]
            for part in plan.stages[0].weights.parameters
        },
    )


def _work(plan: Plan) -> Table:
    stages = plan.stages
    rows = {
        "samples a step": [f"{stage.batch}" for stage in stages],
        "tokens a sample": [f"{stage.tokens}" for stage in stages],
        "encoder tokens a sample": [f"{stage.patches}" if stage.patches else "kept" for stage in stages],
        "PFLOPs a step": [f"{stage.flops / 1e15:.4g}" for stage in stages],
        "recomputed, PFLOPs a step": [
            f"{stage.recomputed / 1e15:.4g}" if stage.arrangement.checkpointing else "-" for stage in stages
        ],
        "MFU, nothing counted twice": [f"{_mfu(stage, plan):.2f}" for stage in stages],
        "steps": [f"{stage.steps:,}" for stage in stages],
        "hours": [f"{stage.hours:.2f}" for stage in stages],
        "price, $": [f"{stage.price:.0f}" for stage in stages],
    }
    return _grid("work", [stage.name for stage in stages], rows)


def _mfu(stage: PlannedStage, plan: Plan) -> float:
    """The rate of the FLOPs that a run without checkpointing would need."""
    recomputed = stage.recomputed if stage.arrangement.checkpointing else 0
    return plan.mfu * stage.flops / (stage.flops + recomputed)


def _memory(plan: Plan) -> Table:
    other = "without" if plan.stages[0].arrangement.checkpointing else "with"
    rows = {name: [f"{getattr(stage.memory, name) / GIB:.2f}" for stage in plan.stages] for name in MEMORY}
    rows[f"total {other} checkpointing"] = [f"{stage.memory_otherwise.total / GIB:.2f}" for stage in plan.stages]
    rows["fits"] = ["yes" if stage.fits else "NO" for stage in plan.stages]
    title = f"GiB on each GPU, of {plan.memory_gib:.0f} usable"
    return _grid(title, [stage.name for stage in plan.stages], rows)


def _evaluations(plan: Plan) -> Table:
    tasks = plan.evaluations
    rows = {
        "photographs": [f"{judged.items:,}" for judged in tasks],
        "TFLOPs a photograph": [f"{judged.flops / 1e12:.2f}" for judged in tasks],
        "minutes reading": [f"{judged.read_hours * 60:.1f}" for judged in tasks],
        "minutes writing answers": [f"{judged.write_hours * 60:.1f}" for judged in tasks],
        "price, $": [f"{judged.price:.2f}" for judged in tasks],
        "GiB": [f"{judged.memory_gib:.1f}" for judged in tasks],
    }
    return _grid(f"evaluation on one {plan.gpu}", [judged.task for judged in tasks], rows)


def _notes(plan: Plan, table: Machines) -> Iterator[str]:
    for stage in {stage.arrangement: stage for stage in reversed(plan.stages)}.values():
        yield f"Arrangement, {stage.name}: {stage.arrangement}."
    for phase, stages, hours in _phases(table):
        paper = f"{hours:g} h on {table.paper.gpus}x {table.paper.gpu}"
        yield f"{phase.capitalize()}: {plan.hours(stages):.1f} h; the paper states {paper}."
    total = sum(stage.price for stage in plan.stages)
    yield f"All training: {plan.hours(STAGES):.1f} h, {total:.0f} $."
    yield (
        f"Assumed (machines.yaml, {table.dated}): lengths of prompts and answers, MFU, prices; loading and "
        "decoding photographs, evaluation between stages and saving are not counted."
    )


def _grid(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Table:
    grid = Table()
    grid.add_column(title, no_wrap=True)
    for column in columns:
        grid.add_column(column, justify="right", no_wrap=True)
    for name, cells in rows.items():
        grid.add_row(name, *cells)
    return grid
