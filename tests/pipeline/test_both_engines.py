"""DVC and Snakemake agree on what is stale, compute the same and leave the same `dvc.lock`."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.pipeline.conftest import Toy, commit

ALL = ["fetch@one", "fetch@two", "judge@x", "judge@y", "judge@z", "report", "train@a", "train@b"]


def test_after_dvc_repro_snakemake_has_nothing_to_do(toy: Toy) -> None:
    toy.dvc("repro")
    assert toy.executed() == ALL
    assert toy.settled()


def test_parallel_jobs_give_the_lock_and_files_of_dvc_repro(toy: Toy, tmp_path: Path) -> None:
    other = toy.clone(tmp_path / "other")
    toy.dvc("repro")
    other.snakemake()
    assert other.executed() == ALL
    assert other.lock() == toy.lock()
    assert other.settled()


def test_a_target_runs_its_stage_and_what_that_needs(toy: Toy) -> None:
    toy.snakemake("judge")
    assert toy.executed() == [stage for stage in ALL if stage != "report"]
    assert "Nothing to be done" in toy.snakemake("-n", "judge")
    toy.snakemake("report")
    assert toy.executed() == ["report"]


def test_a_param_concerns_the_same_stages_in_both_and_changing_back_runs_nothing(toy: Toy, tmp_path: Path) -> None:
    toy.dvc("repro")
    commit(toy.root)
    other = Toy(tmp_path / "other")
    shutil.copytree(toy.root, other.root)
    toy.executed(), other.executed()
    for copy, run in ((toy, toy.dvc), (other, other.snakemake)):
        copy.edit("params.yaml", "y: {bins: 3}", "y: {bins: 4}")
        run(*(["repro"] if copy is toy else []))
    assert toy.executed() == other.executed() == ["judge@y", "report"]
    assert toy.lock() == other.lock()
    for copy, run in ((toy, toy.dvc), (other, other.snakemake)):
        copy.edit("params.yaml", "y: {bins: 4}", "y: {bins: 3}")
        run(*(["repro"] if copy is toy else []))
        assert copy.executed() == []
        assert copy.settled()
    assert toy.lock() == other.lock()


def test_the_tools_take_turns(toy: Toy) -> None:
    toy.snakemake()
    toy.executed()
    toy.edit("code/train.txt", "train 1", "train 2")
    assert "train@a" in toy.snakemake("-n")
    toy.dvc("repro")
    assert toy.executed() == ["judge@x", "judge@y", "judge@z", "report", "train@a", "train@b"]
    assert toy.settled()
    toy.edit("params.yaml", "b: {steps: 1}", "b: {steps: 2}")
    toy.snakemake()
    assert "train@a" not in toy.executed()
    assert toy.settled()
    toy.edit("params.yaml", "two: {size: 20}", "two: {size: 20}, three: {size: 30}")
    toy.dvc("repro")
    assert "fetch@three" in toy.executed()
    assert toy.settled()


def test_touched_files_cause_nothing(toy: Toy) -> None:
    toy.snakemake()
    toy.executed()
    for path in (*toy.root.glob("code/*"), *toy.root.glob("raw/*"), *toy.root.glob("models/*"), toy.root / "dvc.lock"):
        path.touch()
    assert toy.settled()


def test_a_lost_output_comes_back_from_the_cache(toy: Toy) -> None:
    toy.dvc("repro")
    toy.executed()
    (toy.root / "models/a").unlink()
    toy.snakemake()
    assert toy.executed() == []
    assert toy.settled()


def test_a_clone_runs_everything_and_after_a_pull_nothing(toy: Toy, tmp_path: Path) -> None:
    toy.dvc("repro")
    toy.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    toy.dvc("push", "-q")
    commit(toy.root)
    clone = toy.clone(tmp_path / "clone")
    assert "report" in clone.snakemake("-n")
    clone.dvc("pull", "-q")
    assert clone.settled()


def test_an_archive_without_history_works(toy: Toy) -> None:
    shutil.rmtree(toy.root / ".git")
    toy.snakemake()
    assert toy.executed() == ALL
    toy.dvc("repro")
    assert toy.settled()
