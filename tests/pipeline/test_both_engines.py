"""DVC and Snakemake agree on what is stale, compute the same and leave the same `dvc.lock`."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.pipeline.conftest import ALL, Toy, commit


def test_after_dvc_repro_snakemake_has_nothing_to_do_and_touched_files_change_nothing(finished: Toy) -> None:
    for path in (*finished.root.glob("[crm]*/*"), finished.root / "dvc.lock", finished.root / "params.yaml"):
        path.touch()
    (finished.root / "models/.a.x1y2z3.part").write_text("half")  # as a killed write leaves it
    assert finished.settled()


def test_parallel_jobs_give_the_lock_and_files_of_dvc_repro(toy: Toy, finished: Toy) -> None:
    toy.snakemake("judge")  # a target: its stage and what that needs
    assert toy.executed() == [stage for stage in ALL if stage != "report"]
    toy.snakemake()
    assert toy.executed() == ["report"]
    assert toy.lock() == finished.lock()
    assert (toy.root / "report.txt").read_bytes() == (finished.root / "report.txt").read_bytes()
    assert toy.settled()


def test_both_run_the_same_by_turns_with_and_without_a_history(finished: Toy, tmp_path: Path) -> None:
    archive = Toy(shutil.copytree(finished.root, tmp_path / "archive", ignore=shutil.ignore_patterns(".git")))
    original = finished.lock()
    for toy in (finished, archive):
        toy.edit("params.yaml", "y: {bins: 3}", "y: {bins: 4}")
    finished.dvc("repro")
    archive.snakemake()
    assert finished.executed() == archive.executed() == ["judge@y", "report"]
    assert finished.lock() == archive.lock() != original
    # Changed back, and with an output lost: the cache has everything.
    for toy in (finished, archive):
        toy.edit("params.yaml", "y: {bins: 4}", "y: {bins: 3}")
        (toy.root / "models/a").unlink()
    finished.dvc("repro")
    archive.snakemake()
    assert finished.executed() == archive.executed() == []
    assert finished.lock() == archive.lock() == original
    archive.edit("params.yaml", "two: {size: 20}", "two: {size: 20}, three: {size: 30}")
    archive.edit("code/train.txt", "train 1", "train 2")
    said = archive.snakemake("-n")
    assert "train@a" in said and "fetch@three" in said
    archive.dvc("repro")
    assert archive.executed() == ["fetch@three", "judge@x", "judge@y", "report", "train@a", "train@b"]
    assert archive.settled()


def test_a_clone_has_everything_to_do_and_after_a_pull_nothing(finished: Toy, tmp_path: Path) -> None:
    finished.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    finished.dvc("push", "-q")
    commit(finished.root)
    clone = finished.clone(tmp_path / "clone")
    assert "report" in clone.snakemake("-n")
    clone.dvc("pull", "-q")
    assert clone.settled()
