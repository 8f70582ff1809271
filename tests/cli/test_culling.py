"""`calm score --groups --copy-best`: bursts together, the best of each into a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calm.cli import culling
from tests.cli.conftest import ByWidth, rows, run, scene

Save = Callable[..., Path]


@pytest.fixture
def bursts(holiday: Save) -> list[Path]:
    """Two bursts, whose frames lie between others, and two photographs of their own."""
    frames = [("a1", 1, 300, 0.0), ("b1", 2, 700, 0.0), ("c", 3, 600, 0.0)]
    frames += [("a2", 1, 500, 0.02), ("b2", 2, 400, 0.03), ("a3", 1, 400, 0.04), ("d", 4, 200, 0.0)]
    return [holiday(f"{name}.jpg", seed, width, shift) for name, seed, width, shift in frames]


def shown(*options: str) -> list[tuple[str, int | None, bool]]:
    return [(Path(row["file"]).stem, row["group"], row["best"]) for row in rows(*options)]


A = [("a2", 1, True), ("a3", 1, False), ("a1", 1, False)]
B = [("b1", 2, True), ("b2", 2, False)]
C, D = [("c", None, True)], [("d", None, True)]


@pytest.mark.usefixtures("bursts")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], A + B + C + D),
        (["--sort"], B + C + A + D),
        (["--top", "2"], B + C),
        (["--min", "4.5"], A[:1] + B[:1] + C),
    ],
)
def test_what_looks_alike_stands_together_the_best_first(
    options: list[str], expected: list[tuple[str, int | None, bool]]
) -> None:
    assert shown("holiday", "--groups", *options) == expected


@pytest.mark.usefixtures("bursts")
def test_groups_are_told_in_all_formats_and_on_request_alone() -> None:
    table = run("holiday", "--groups")
    assert "Groups of photographs that look alike: 2" in table.stderr
    assert [line.split("│")[-2].strip() for line in table.stdout.splitlines() if ".jpg" in line] == [
        *("yes", "no", "no", "yes", "no", "yes", "yes")
    ]
    assert "group,best,model" in run("holiday", "--groups", "--csv").stdout.splitlines()[0]
    for plain in (run("holiday"), run("holiday", "--csv"), run("holiday", "--json")):
        assert "best" not in plain.stdout and "fingerprint" not in plain.stdout


@pytest.mark.usefixtures("bursts")
def test_groups_of_scored_photographs_need_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    run("holiday")
    monkeypatch.setattr(ByWidth, "score", None)
    assert shown("holiday", "--groups") == A + B + C + D


def test_a_folder_of_singles_and_an_empty_result_have_no_groups(holiday: Save) -> None:
    for seed in range(12):
        holiday(f"{seed}.jpg", seed, 300)
    assert {row["group"] for row in rows("holiday", "--groups")} == {None}
    Path("none.jpg").write_bytes(b"")
    assert run("none.jpg", "--groups", "--json").stdout == "[]\n"


def test_frames_of_a_long_series_are_one_group_whatever_their_number() -> None:
    monotone = [culling.fingerprint(scene(5, 200, 0.1 * step / 300)) for step in range(300)]
    others = [culling.fingerprint(scene(seed, 200)) for seed in (6, 7)]
    found = culling.groups([others[0], *monotone, others[1]])
    assert len(set(found[1:-1])) == 1 and len(set(found)) == 3


@pytest.mark.usefixtures("bursts")
def test_the_best_are_copied_over_nothing_and_once() -> None:
    os.utime("holiday/c.jpg", (1e9, 1e9))
    rows("holiday", "--copy-best", "holiday/best")
    copies = Path("holiday/best")
    assert sorted(path.name for path in copies.iterdir()) == ["a2.jpg", "b1.jpg", "c.jpg", "d.jpg"]
    assert (copies / "c.jpg").read_bytes() == Path("holiday/c.jpg").read_bytes()
    assert (copies / "c.jpg").stat().st_mtime == 1e9
    assert len(rows("holiday", "--copy-best", "holiday/best")) == 7  # the copies are no photographs to score
    (copies / "a2.jpg").write_text("mine")
    result = run("holiday", "--copy-best", "holiday/best")
    assert result.exit_code == 1 and (copies / "a2.jpg").read_text() == "mine"
    assert "error: holiday/best/a2.jpg holds something else: holiday/a2.jpg was not copied" in result.stderr


@pytest.mark.usefixtures("bursts")
def test_a_copy_that_breaks_off_has_no_final_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: Path, target: Path) -> Any:
        target.write_bytes(source.read_bytes()[:99])
        if source.name == "c.jpg":
            raise OSError(28, "No space left on device")
        return shutil.copyfile(source, target)

    monkeypatch.setattr(culling.shutil, "copy2", broken)
    result = run("holiday", "--copy-best", "best")
    assert result.exit_code == 1 and "could not write best/c.jpg: No space left on device" in result.stderr
    assert sorted(path.name for path in Path("best").iterdir()) == ["a2.jpg", "b1.jpg", "d.jpg"]


def test_thresholds_are_those_of_the_leakage_filter() -> None:
    from calm.params import load_params
    from tests.test_structure import REPOSITORY

    rules = load_params(REPOSITORY / "params.yaml").data.leakage
    assert (culling.DISTANCE, culling.CORRELATION) == (rules.phash_distance, rules.correlation)
