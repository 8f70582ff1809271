"""Photographs that the paper's model scores in a second, beside the plan's; and a rater's support set, read once."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.report import Bench, Found
from benchmarks.gpu.samples import pictures
from benchmarks.gpu.training import Model
from benchmarks.personalised import Rater, one_by_one, shared
from calm.assistant import Calm
from calm.plan import judge
from calm.plan.shapes import CalmForConditionalGeneration
from calm.training.loop.throughput import machines

SECTION = "scoring"
BATCHES = {1: 16, 16: 64, 64: 128}  # photographs at once: photographs in all
SIDE = 640  # of AVA's photographs, about
SHOWN, ASKED = 4, 8  # photographs of the rater: four of 672 tokens fit into Vicuna's 4,096 positions


def scoring(bench: Bench, model: Model) -> None:
    """A row for every batch size, and one for what two ways of reading a support set take."""
    for batch, count in BATCHES.items():
        expected = estimate(bench, model, batch)
        measure = partial(_scored, bench, model, batch, count)
        need = 5 + 3 * count / expected["photographs_per_second"]
        bench.row(SECTION, f"Calm.score, batch of {batch}", measure, expected, need=need)
    bench.row(SECTION, f"in context, {SHOWN} shown, {ASKED} scored", partial(_in_context, bench, model), need=15)


def estimate(bench: Bench, model: Model, batch: int) -> dict[str, Any]:
    """What the plan says of AVA's test photographs in such batches, on this card; no photograph is decoded."""
    table, params, shapes = machines(), model.params, model.planner.shapes
    assert isinstance(shapes, CalmForConditionalGeneration)
    evaluation = params.evaluation.model_copy(update={"batch_size": batch})
    judged = judge(
        shapes,
        "scoring",
        params.model_copy(update={"evaluation": evaluation}),
        table,
        rate=bench.gpu.tflops * 1e12 * table.mfu,
        bandwidth=bench.gpu.bandwidth_gb * 1e9,
        price=bench.gpu.price_per_hour,
    )
    seconds = judged.hours * 3600
    return _rates(judged.items, seconds) | {"memory_gib": round(judged.memory_gib, 1)}


def _rates(count: int, seconds: float) -> dict[str, Any]:
    rate = count / seconds
    items = machines().evaluation["scoring"].items
    return {"photographs_per_second": round(rate, 2), "ava_test_minutes": round(items / rate / 60, 1)}


def _calm(model: Model) -> Calm:
    assembly = model.assembly
    assert assembly is not None
    return Calm(assembly.model, assembly.processor, assembly.processor.image_processor, Path("drawn"))


def _scored(bench: Bench, model: Model, batch: int, count: int) -> Found:
    """With and without the processor's part: opening, scaling and normalising photographs that are decoded."""
    calm = _calm(model)
    images = list(pictures(count if bench.on_card else 2 * min(batch, 2), SIDE).images)
    calm.score(images[:batch], batch_size=batch)  # warm
    bench.wait()
    started = time.perf_counter()
    scores = calm.score(images, batch_size=batch)
    bench.wait()
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    for _ in calm._pixels(images, batch):
        pass
    bench.wait()
    reading = time.perf_counter() - started
    assert len(scores) == len(images) and np.isfinite([score.regression for score in scores]).all()
    alone = {f"card_{name}": value for name, value in _rates(len(images), seconds - reading).items()}
    return Found(_rates(len(images), seconds) | alone | {"photographs": len(images)})


def _in_context(bench: Bench, model: Model) -> Found:
    """Whole prompts beside one reading of the support set: seconds of each, and how far the scores lie apart."""
    calm = _calm(model)
    rater = Rater.drawn(list(pictures(SHOWN + ASKED, SIDE).images), SHOWN, draws=1)
    found, seconds = {}, {}
    for name, way in {"shared": shared, "whole": one_by_one}.items():
        way(calm, rater)  # warm
        bench.wait()
        started = time.perf_counter()
        found[name] = way(calm, rater)
        bench.wait()
        seconds[name] = time.perf_counter() - started
    return Found(
        {
            "whole_prompts_seconds": round(seconds["whole"], 3),
            "shared_seconds": round(seconds["shared"], 3),
            "ratio": round(seconds["whole"] / seconds["shared"], 2),
            "largest_difference_points": round(float(np.abs(found["shared"] - found["whole"]).max()), 4),
        }
    )
