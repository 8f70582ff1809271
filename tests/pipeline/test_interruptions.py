"""What is killed leaves nothing that a re-run could take for a result."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from tests.pipeline.conftest import Toy

AFTER_A = ["judge@x", "judge@y", "report", "train@a"]


def runner(toy: Toy, engine: str) -> Callable[..., str]:
    """`dvc repro` or `snakemake -j8`."""
    return (lambda **expected: toy.dvc("repro", **expected)) if engine == "dvc" else toy.snakemake


@pytest.mark.parametrize("engine", ["dvc", "snakemake"])
def test_a_stage_killed_in_the_middle_is_run_again(finished: Toy, engine: str) -> None:
    run = runner(finished, engine)
    finished.edit("params.yaml", "a: {steps: 1}", "a: {steps: 2}")
    (finished.root / "die-in-a").touch()
    assert "train@a" in run(expected=255 if engine == "dvc" else 1)
    assert not (finished.root / "models/a").exists()
    (finished.root / "die-in-a").unlink()
    finished.executed()
    run()
    assert finished.executed() == AFTER_A
    assert finished.settled()


@pytest.mark.parametrize("engine", ["dvc", "snakemake"])
def test_an_engine_killed_with_all_it_started_can_be_started_again(finished: Toy, engine: str) -> None:
    finished.edit("params.yaml", "a: {steps: 1}", "a: {steps: 2}")
    (finished.root / "wait-in-a").touch()
    with running_a_stage(finished, ["dvc", "repro"] if engine == "dvc" else ["snakemake", "-j8"]):
        assert "train@a" in finished.snakemake("-n")  # asking meanwhile is allowed
    (finished.root / "wait-in-a").unlink()
    finished.executed()
    if engine == "snakemake":
        assert "--unlock" in finished.snakemake(expected=1)
        finished.snakemake("--unlock")
    runner(finished, engine)()
    assert finished.executed() == AFTER_A
    assert finished.settled()


def test_after_a_killed_scheduler_dvc_may_finish_the_work(finished: Toy) -> None:
    finished.edit("params.yaml", "a: {steps: 1}", "a: {steps: 2}")
    (finished.root / "wait-in-a").touch()
    with running_a_stage(finished, ["snakemake", "-j8"]):
        pass
    (finished.root / "wait-in-a").unlink()
    finished.dvc("repro")
    finished.snakemake("--unlock")
    finished.executed()
    assert finished.settled()


def test_what_a_killed_write_leaves_behind_changes_no_hash(finished: Toy) -> None:
    (finished.root / "models/.a.x1y2z3.part").write_text("half")
    assert finished.settled()


@contextmanager
def running_a_stage(toy: Toy, command: list[str]) -> Iterator[None]:
    """Start a command and enter as soon as a stage is in the middle; at the end SIGKILL for it and all it started."""
    process = psutil.Popen(
        command, cwd=toy.root, env=toy.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not (toy.root / "waiting").exists():
            assert process.poll() is None, "it ended before the stage began"
            assert time.monotonic() < deadline, "the stage never began"
            time.sleep(0.05)
        yield
    finally:
        started = [process, *process.children(recursive=True)]
        for each in started:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(started, timeout=10)
