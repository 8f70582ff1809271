"""What calm.pipeline needs of DVC's undocumented interface, on the toy project."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from calm.pipeline import STAMP_TIME, Row, groups, plan, planned, retiring
from tests.pipeline.conftest import ALL, Toy


def by_address(rows: list[Row]) -> dict[str, Row]:
    return {row.address: row for row in rows}


def test_the_tested_version_of_dvc_is_installed() -> None:
    assert version("dvc").startswith("3.67.")


def test_rows_are_the_resolved_stages_upstream_first(toy: Toy) -> None:
    rows = plan(toy.root)
    assert sorted(row.address for row in rows) == ALL
    seen: set[str] = set()
    for row in rows:
        assert set(row.upstream) <= seen
        seen.add(row.address)
    found = by_address(rows)
    assert found["train@a"].upstream == ("fetch@one", "fetch@two")  # by way of the folder that holds both outputs
    assert found["judge@x"].upstream == ("train@a", "train@b")
    assert found["report"].upstream == ("judge@x", "judge@y")
    assert found["report"].upstream_stamps == (found["judge@x"].stamp, found["judge@y"].stamp)
    assert (found["report"].threads, found["report"].mem_mb, found["report"].minutes) == (1, 100, 1)
    assert planned(toy.root) == rows


def test_groups_are_the_repeated_stages(toy: Toy) -> None:
    assert {name: len(rows) for name, rows in groups(plan(toy.root)).items()} == {"fetch": 2, "train": 2, "judge": 2}


def test_a_stamp_exists_exactly_while_dvc_calls_the_stage_up_to_date(toy: Toy, finished: Toy) -> None:
    assert not any((toy.root / row.stamp).exists() for row in plan(toy.root))
    assert all((finished.root / row.stamp).stat().st_mtime == STAMP_TIME for row in plan(finished.root))
    (finished.root / "models/a").write_text("something else")
    rows = by_address(plan(finished.root))
    # Judges read what train@a makes, so they are changed as well; the report's inputs are not, so far.
    assert {address for address, row in rows.items() if not (finished.root / row.stamp).exists()} == {
        "train@a",
        "judge@x",
        "judge@y",
    }


def test_a_changed_rule_leaves_no_stamp_to_compare_with(finished: Toy) -> None:
    before = by_address(plan(finished.root))
    assert (finished.root / before["report"].stamp).exists()
    with (finished.root / "workflow/rules/stages.smk").open("a") as file:
        file.write("# a comment\n")
    after = by_address(plan(finished.root))
    assert before["report"].stamp != after["report"].stamp
    assert not (finished.root / before["report"].stamp).exists()
    assert (finished.root / after["report"].stamp).exists()


def test_a_stage_without_resources_is_refused_by_name(toy: Toy) -> None:
    toy.edit("dvc.yaml", "outs: [report.txt]\n    meta: *meta", "outs: [report.txt]")
    with pytest.raises(ValueError, match=r"stage report:\s+meta\.threads: missing"):
        plan(toy.root)


def test_outputs_that_no_stage_makes_any_more_leave_the_workspace_if_the_cache_has_them(finished: Toy) -> None:
    (finished.root / "results/x").write_text("edited by hand")
    with retiring(finished.root) as (removed, kept):
        finished.edit("params.yaml", ", two: {size: 20}", "")
        finished.edit("params.yaml", "x: {bins: 3}, ", "")
    assert ([Path(path).name for path in removed], [Path(path).name for path in kept]) == (["two"], ["x"])
    assert not (finished.root / "raw/two").exists()
    assert (finished.root / "results/x").read_text() == "edited by hand"
    finished.edit("params.yaml", "one: {size: 10}", "one: {size: 10}, two: {size: 20}")
    finished.dvc("repro", "fetch@two")
    assert finished.executed() == []
    assert (finished.root / "raw/two").exists()
