"""What a benchmark holds calm against gives the same answers, whatever has changed since it was measured."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu import demo, scoring
from benchmarks.gpu.__main__ import FOLDER, rehearse
from benchmarks.gpu.page import render
from benchmarks.gpu.report import CARD, MEASURED, NO_GPU, NO_TIME, REHEARSAL, Bench, Check, Found, Report, about, gpu_of
from benchmarks.personalised import TOLERANCE, Rater, one_by_one, shared
from benchmarks.scoring import generate_loop
from calm.assistant import Calm
from tests import tiny


@pytest.mark.parametrize("name", sorted(path.stem for path in (tiny.REPOSITORY / "benchmarks").glob("*.py")))
def test_every_benchmark_can_be_imported(name: str) -> None:
    assert import_module(f"benchmarks.{name}").__doc__


@pytest.fixture(scope="module")
def calm(trained_template: Any) -> Calm:
    return Calm.from_pretrained(trained_template.layout.finetuned("scores"), device="cpu", dtype="float32")


def test_a_loop_of_generate_gives_the_answers_of_score(calm: Calm) -> None:
    pictures = tiny.pictures(4)
    assert generate_loop(calm, pictures) == [score.raw for score in calm.score(pictures, batch_size=2)]


def test_whole_prompts_give_the_scores_of_a_shared_support_set(calm: Calm) -> None:
    rater = Rater.drawn(tiny.pictures(5), support=3, draws=2)
    whole = one_by_one(calm, rater)
    assert whole.shape == (4, 2) and np.ptp(whole, axis=0).min() > TOLERANCE
    np.testing.assert_allclose(shared(calm, rater), whole, atol=TOLERANCE)


def bench(report: Report, device: str | None = "cpu", left: float = float("inf"), where: str = REHEARSAL) -> Bench:
    _, gpu = gpu_of(None)
    return Bench(report, where, torch.device(device) if device else None, gpu, left)


def test_all_that_a_gpu_is_asked_runs_on_a_processor_with_tiny_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `make gpu` has all stages, both number formats and every batch.
    monkeypatch.setattr(demo, "stages", lambda _: ["alignment", "visual"])
    monkeypatch.setattr(demo, "LOSS", {"bfloat16": 0.06})
    monkeypatch.setattr(demo, "POINTS", {"bfloat16": 0.1})
    monkeypatch.setattr(scoring, "BATCHES", {2: 4})
    report = Report(tmp_path / "gpu.json", about(None))
    rehearse(bench(report))
    assert {row["name"]: row["status"] for row in report.rows if row["status"] != MEASURED} == {}
    assert report.problems == []
    sections = {row["section"]: len(row["checks"]) for row in report.rows}
    assert sections.keys() == {"demo", "scoring", "steps", "variants", "compiled", "hours"}
    assert Report(tmp_path / "gpu.json").rows == report.rows


def test_a_row_that_cannot_be_had_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    def out_of_memory() -> Found:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")

    def wrong() -> Found:
        raise ValueError("no such kernel")

    def found() -> Found:
        return Found({"mfu": 0.3}, [Check("MFU", 0.3, 0.45, least=True)])

    report = Report(tmp_path / "gpu.json", about(None))
    here = bench(report, where=CARD)
    for name, measure in {"large": out_of_memory, "broken": wrong, "slow": found}.items():
        here.row("steps", name, measure)
    bench(report, left=0, where=CARD).row("steps", "late", found)
    bench(report, device=None, where=CARD).row("steps", "elsewhere", found)
    said = {row["name"]: row["status"] for row in Report(tmp_path / "gpu.json").rows}
    assert said == {
        "large": "not run: out of memory (CUDA out of memory. Tried to allocate 20 GiB.)",
        "broken": "failed: ValueError: no such kernel",
        "slow": MEASURED,
        "late": NO_TIME,
        "elsewhere": NO_GPU,
    }
    assert report.problems == ["broken: failed: ValueError: no such kernel", "slow: MFU: 0.3, limit 0.45"]
    assert "| slow | **a check does not hold** |" in render(report)


def test_a_check_of_what_is_no_number_does_not_hold() -> None:
    assert not Check("loss", float("nan"), 1).holds and not Check("MFU", float("nan"), 0, least=True).holds
    assert Check("loss", 1, 1).holds and Check("MFU", 1, 1, least=True).holds


def test_the_page_is_what_its_figures_make_of_it() -> None:
    report = Report(FOLDER / "gpu.json")
    assert (FOLDER / "gpu.md").read_text(encoding="utf-8") == render(report)
    rows = [row for row in report.rows if row["where"] == CARD]
    assert len(rows) > 25 and (report.about["gpu"] or {row["status"] for row in rows} == {NO_GPU})
