"""docs/benchmarks/gpu.md, written from gpu.json alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import CARD, MEASURED, REHEARSAL, Report
from calm.io import atomic_file
from calm.training.loop.throughput import machines

Row = dict[str, Any]

HEAD = """\
# One GPU: losses, MFU, memory, hours, photographs a second

`make gpu` on a machine with one GPU (A100, H100, H200; at most eight minutes) writes `gpu.json` and, from it, this
page. It needs no network and no data set: torch, transformers, peft and what `import calm` needs (kornia, wrapt,
pillow-heif, gguf among it). Weights of the paper's shapes are drawn on the card; samples are made of the grammar's
texts. Without the demo's wheels its weights are drawn too, in its shapes. A row that cannot be had says why, and the
others go on; at the end the command names every check that does not hold, and its exit code is 1.

What the plan says before a card was had: each operation at the peak or at the memory's bandwidth, C and S could not
reach an MFU above .36 on an A100 with adapters multiplied in float32 (19.5 TFLOP/s). As TF32, which calm takes beside
bfloat16, .54 is the most with activations kept, and .38 with gradient checkpointing, which MFU does not count. An
H100 is faster in products than in memory: there .37 is the most with activations kept, on an H200 .46, for as long as
operations between products are not fused.
"""
DEMO = """\
## The demo's steps beside the processor's

All stages from the same weights, four steps each. The processor computes in float32; the differences are the largest
of any step. Resuming: a run stopped after its third step and started again, beside one that was not stopped.
"""
STEPS = """\
## Steps of the paper's model

CLIP ViT-L/14-336, LLaMA-7B, LoRA of rank 128 on all linear layers, 576 + 96 visual tokens, at the largest micro-batch
that fits, at most a GPU's share of the paper's batch on eight. MFU counts nothing twice; the target in C and S with
activations kept is .45. Seconds are of a micro-batch: found, as `calm plan` has them (its FLOPs at an MFU of .4), and
the least: every operation at the card's peak or its bandwidth. GiB are the most that is allocated, beside the plan's,
which has to be within 10 %.
"""
VARIANTS = """\
## Comments by attention, number format and compiler

Activations kept where they fit. calm multiplies float32 matrices (adapters, MFAM) as TF32 where the frozen parts are
in bfloat16.
"""
HOURS = """\
## Hours of the paper's run

On {gpus}x {gpu}, by the best MFU above, communication not counted. The plan has gradient checkpointing and an MFU of
.4; the paper states {pretrain:g} h for U and G, {finetune:g} h for C and S.
"""
SCORING = """\
## Scoring AVA's 19,928 test photographs

`Calm.score` with drawn weights, whose answers take five tokens. "Card alone" is without opening, scaling and
normalising on the processor. The plan: prompts read at an MFU of .4, answers written at .6 of the memory's bandwidth.
"""
TINY = """\
## The same code on a processor

With a model of a few thousand weights, so that all of it has run before a card sees it; memory and MFU are a card's.
"""


def write_page(report: Report, path: Path) -> None:
    """Render, whole or not at all."""
    with atomic_file(path) as part:
        part.write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """The page."""
    paper = machines().paper
    facts = {"gpus": paper.gpus, "gpu": paper.gpu, "pretrain": paper.pretrain_hours, "finetune": paper.finetune_hours}
    blocks = [
        HEAD,
        _measured_on(report.about),
        DEMO,
        _table(report, "demo", ["checks"], lambda row: [checks(row)]),
        STEPS,
        _table(report, "steps", STEP_COLUMNS, step),
        VARIANTS,
        _table(report, ("variants", "compiled"), STEP_COLUMNS, step),
        HOURS.format(**facts),
        _table(report, "hours", ["hours", "MFU", "hours planned"], hours),
        SCORING,
        _table(report, "scoring", SCORE_COLUMNS, scored),
        _rehearsal(report),
    ]
    return "\n".join(block for block in blocks if block)


def _rehearsal(report: Report) -> str:
    """In a sentence, with a table of what is wrong; nothing of a run that had a card."""
    rows = [row for row in report.rows if row["where"] == REHEARSAL]
    if not rows:
        return ""
    held = [check["holds"] for row in rows for check in row["checks"]]
    ran = sum(row["status"] == MEASURED for row in rows)
    said = f"{TINY}{ran} of {len(rows)} rows ran, and {sum(held)} of {len(held)} checks hold.\n"
    wrong = [row for row in rows if row["status"] != MEASURED or not all(check["holds"] for check in row["checks"])]
    table = "\n".join(_lines(["", "status", "checks"], wrong, lambda row: [checks(row)]))
    return f"{said}\n{table}\n" if wrong else said


def _measured_on(about: Row) -> str:
    where = f"Torch {about['torch']}, transformers {about['transformers']}, commit {about['commit']}, {about['date']}"
    if about["gpu"] is None:
        return f"**No card has run it yet**, as every row says; the plan's figures are an A100's.\n{where}.\n"
    said = f"Measured on {about['gpu']} ({about['memory_gib']} GiB, CUDA {about['cuda']}).\n{where}."
    said += f" A product of two 8192 x 8192 matrices in bfloat16 reaches {about['product_tflops']:g} TFLOP/s."
    notes = [f"{key}: {value}." for key, value in about.items() if key == "demo" or key.startswith("section ")]
    return "\n".join([said, *notes]) + "\n"


STEP_COLUMNS = ["micro-batch", "tokens/s", "MFU", "at most", "s", "s planned", "s least", "GiB", "GiB planned"]
SCORE_COLUMNS = ["photographs/s", "card alone", "planned", "AVA, minutes", "planned", "whole / shared"]


def step(row: Row) -> list[str]:
    """Cells of a micro-batch; planned ones for the lengths that were met, or else for those assumed."""
    found, planned = row["values"], row["planned"]
    return [
        number(found.get("micro_batch", planned.get("micro_batch"))),
        number(found.get("tokens_per_second"), "{:.0f}"),
        number(found.get("mfu"), "{:.3f}"),
        number(planned.get("mfu_at_most"), "{:.2f}"),
        number(found.get("seconds"), "{:.3f}"),
        number(found.get("planned_seconds", planned.get("seconds")), "{:.3f}"),
        number(planned.get("least_seconds"), "{:.3f}"),
        number(found.get("memory_gib"), "{:.1f}"),
        number(found.get("planned_memory_gib", planned.get("memory_gib")), "{:.1f}"),
    ]


def hours(row: Row) -> list[str]:
    """Cells of a stage of the paper's run."""
    found, planned = row["values"], row["planned"]
    cells = (found.get("hours"), "{:.2f}"), (found.get("mfu"), "{:.3f}"), (planned.get("hours"), "{:.2f}")
    return [number(value, form) for value, form in cells]


def scored(row: Row) -> list[str]:
    """Cells of a way to score."""
    found, planned = row["values"], row["planned"]
    cells = (
        (found.get("photographs_per_second"), "{:.1f}"),
        (found.get("card_photographs_per_second"), "{:.1f}"),
        (planned.get("photographs_per_second"), "{:.1f}"),
        (found.get("ava_test_minutes"), "{:.1f}"),
        (planned.get("ava_test_minutes"), "{:.1f}"),
        (found.get("ratio"), "{:.2f}"),
    )
    return [number(value, form) for value, form in cells]


def checks(row: Row) -> str:
    """Every check of a row, those that do not hold in bold."""
    said = (f"{check['what']}: {check['found']:.3g} (limit {check['limit']:g})" for check in row["checks"])
    marked = zip(said, row["checks"], strict=True)
    return "; ".join(text if check["holds"] else f"**{text}**" for text, check in marked) or "-"


def number(value: Any, form: str = "{}") -> str:
    """A cell; a dash for what there is not."""
    return "-" if value is None else form.format(value)


def _table(
    report: Report,
    sections: str | Sequence[str],
    columns: Sequence[str],
    cells: Callable[[Row], Iterable[str]],
) -> str:
    wanted = [sections] if isinstance(sections, str) else sections
    rows = [row for row in report.rows if row["where"] == CARD and row["section"] in wanted]
    return "\n".join(_lines(["", "status", *columns], rows, cells)) + "\n"


def _lines(head: Sequence[str], rows: Iterable[Row], cells: Callable[[Row], Iterable[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        wrong = row["status"] == MEASURED and not all(check["holds"] for check in row["checks"])
        status = "**a check does not hold**" if wrong else row["status"]
        yield f"| {row['name']} | {status} | {' | '.join(cells(row))} |"
