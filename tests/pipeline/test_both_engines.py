"""DVC and Snakemake agree on what is stale, compute the same and leave the same `dvc.lock`."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.pipeline.conftest import ALL, Toy, commit


def test_after_dvc_repro_snakemake_has_nothing_to_do_and_touched_files_change_nothing(finished: Toy) -> None:
    assert finished.settled()
    for path in (*finished.root.glob("[crm]*/*"), finished.root / "dvc.lock", finished.root / "params.yaml"):
        path.touch()
    assert finished.settled()


def test_parallel_jobs_give_the_lock_and_files_of_dvc_repro(toy: Toy, finished: Toy) -> None:
    toy.snakemake("judge")  # a target: its stage and what that needs
    assert toy.executed() == [stage for stage in ALL if stage != "report"]
    assert "Nothing to be done" in toy.snakemake("-n", "judge")
    toy.snakemake()
    assert toy.executed() == ["report"]
    assert toy.lock() == finished.lock()
    assert (toy.root / "report.txt").read_bytes() == (finished.root / "report.txt").read_bytes()
    assert toy.settled()


def test_a_param_concerns_the_same_stages_in_both_and_changing_back_runs_nothing(finished: Toy, tmp_path: Path) -> None:
    other = Toy(shutil.copytree(finished.root, tmp_path / "other"))
    original = finished.lock()
    finished.edit("params.yaml", "y: {bins: 3}", "y: {bins: 4}")
    other.edit("params.yaml", "y: {bins: 3}", "y: {bins: 4}")
    finished.dvc("repro")
    other.snakemake()
    assert finished.executed() == other.executed() == ["judge@y", "report"]
    assert finished.lock() == other.lock() != original
    finished.edit("params.yaml", "y: {bins: 4}", "y: {bins: 3}")
    other.edit("params.yaml", "y: {bins: 4}", "y: {bins: 3}")
    finished.dvc("repro")
    other.snakemake()
    assert finished.executed() == other.executed() == []
    assert finished.lock() == other.lock() == original
    assert other.settled()


def test_the_tools_take_turns(finished: Toy) -> None:
    finished.edit("params.yaml", "b: {steps: 1}", "b: {steps: 2}")
    finished.snakemake()
    assert finished.executed() == ["judge@x", "judge@y", "report", "train@b"]
    finished.edit("code/train.txt", "train 1", "train 2")
    assert "train@a" in finished.snakemake("-n")
    finished.dvc("repro")
    assert finished.executed() == ["judge@x", "judge@y", "report", "train@a", "train@b"]
    assert finished.settled()
    finished.edit("params.yaml", "two: {size: 20}", "two: {size: 20}, three: {size: 30}")
    finished.dvc("repro")
    assert "fetch@three" in finished.executed()
    assert finished.settled()


def test_a_lost_output_comes_back_from_the_cache(finished: Toy) -> None:
    (finished.root / "models/a").unlink()
    finished.snakemake()
    assert finished.executed() == []
    assert finished.settled()


def test_a_clone_has_everything_to_do_and_after_a_pull_nothing(finished: Toy, tmp_path: Path) -> None:
    finished.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    finished.dvc("push", "-q")
    commit(finished.root)
    clone = finished.clone(tmp_path / "clone")
    assert "report" in clone.snakemake("-n")
    clone.dvc("pull", "-q")
    assert clone.settled()


def test_an_archive_without_history_works(finished: Toy) -> None:
    shutil.rmtree(finished.root / ".git")
    finished.edit("params.yaml", "y: {bins: 3}", "y: {bins: 4}")
    finished.snakemake()
    assert finished.executed() == ["judge@y", "report"]
    finished.dvc("repro")
    assert finished.settled()
