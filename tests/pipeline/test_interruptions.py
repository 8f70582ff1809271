"""What is killed leaves nothing that a re-run could take for a result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import psutil

from tests import forked
from tests.pipeline.conftest import Toy, dvc, snakemake


def test_after_a_killed_dvc_snakemake_finishes_the_work(finished: Toy) -> None:
    with running_a_stage(finished, dvc, "repro"):
        assert "train@a" in finished.snakemake("-n")  # asking meanwhile is allowed
    finishes_though_the_stage_is_killed_as_well(finished, finished.snakemake, code=1)
    assert finished.settled()


def test_after_a_killed_scheduler_dvc_finishes_the_work(finished: Toy) -> None:
    with running_a_stage(finished, snakemake, "-j8"):
        pass
    assert "--unlock" in finished.snakemake(expected=1)
    finishes_though_the_stage_is_killed_as_well(finished, partial(finished.dvc, "repro"), code=255)
    finished.snakemake("--unlock")
    assert finished.settled()


def finishes_though_the_stage_is_killed_as_well(toy: Toy, run: Callable[..., str], code: int) -> None:
    (toy.root / "wait-in-a").rename(toy.root / "die-in-a")
    assert "train@a" in run(expected=code)
    assert not (toy.root / "models/a").exists()
    (toy.root / "die-in-a").unlink()
    toy.executed()
    run()
    assert toy.executed() == ["judge@x", "judge@y", "report", "train@a"]


@contextmanager
def running_a_stage(toy: Toy, program: forked.Main, *arguments: str) -> Iterator[None]:
    """Start an engine and enter while it is in the middle of a stage; at the end SIGKILL for it and all it started."""
    toy.edit("params.yaml", "a: {steps: 1}", "a: {steps: 2}")
    (toy.root / "wait-in-a").touch()
    process = toy.start(program, *arguments)
    try:
        deadline = time.monotonic() + 120
        while not (toy.root / "waiting").exists():
            assert process.is_alive(), "it ended before the stage began"
            assert time.monotonic() < deadline, "the stage never began"
            time.sleep(0.05)
        yield
    finally:
        engine = psutil.Process(process.pid)
        started = [engine, *engine.children(recursive=True)]
        for each in started:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.join()
        psutil.wait_procs(started, timeout=10)
