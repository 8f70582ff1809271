"""A stage that is killed leaves nothing that a re-run could take for a result."""

from __future__ import annotations

import pytest

from tests.pipeline.conftest import Toy


@pytest.mark.parametrize("engine", ["dvc", "snakemake"])
def test_a_stage_killed_in_the_middle_is_run_again(toy: Toy, engine: str) -> None:
    run = (lambda **kw: toy.dvc("repro", **kw)) if engine == "dvc" else toy.snakemake
    (toy.root / "die-in-a").touch()
    output = run(expected=255 if engine == "dvc" else 1)
    assert "train@a" in output
    assert not (toy.root / "models/a").exists()
    assert not (toy.root / "report.txt").exists()
    (toy.root / "die-in-a").unlink()
    toy.executed()
    run()
    assert {"train@a", "judge@x", "report"} <= set(toy.executed())
    assert toy.settled()


def test_what_a_killed_write_leaves_behind_changes_no_hash(toy: Toy) -> None:
    toy.dvc("repro")
    toy.executed()
    (toy.root / "models/.a.x1y2z3.part").write_text("half")
    assert toy.settled()
