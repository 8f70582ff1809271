"""Checkpoints are whole or absent, and those that are not what was written are passed by, loudly."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from calm.training.loop import checkpoints
from calm.training.loop.checkpoints import Saved, newest, save
from calm.training.loop.processes import Processes, TrainingError

NAMES = ["a", "b"]
STRATEGY = {"kind": "single"}


def write(root: Path, steps: int, fingerprint: str = "mine", scale: int = 1) -> Path:
    tensors = [
        (f"{kind}/{name}", torch.full((scale, 3), float(steps))) for kind in ("weight", "exp_avg") for name in NAMES
    ]
    curve = [{"step": float(step), "loss": 0.1} for step in range(steps)]
    save(root, fingerprint, curve, STRATEGY, tensors, Processes())
    return root / f"step-{steps:08d}"


def read(root: Path) -> Saved | None:
    return newest(root, "mine", NAMES, Processes())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write(tmp_path, 4)
    saved = read(tmp_path)
    assert saved is not None
    assert [row["step"] for row in saved.curve] == [0, 1, 2, 3]
    assert saved.strategy == STRATEGY
    assert saved.tensors("weight").keys() == set(NAMES)
    assert torch.equal(saved.tensors("exp_avg")["b"], torch.full((1, 3), 4.0))


def test_there_is_nothing_to_resume_at_first(tmp_path: Path) -> None:
    assert read(tmp_path / "state") is None


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for steps in (2, 4, 6):
        write(tmp_path, steps)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000006"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


TENSORS = "tensors-00001-of-00001.safetensors"
DAMAGES: dict[str, Callable[[Path], Any]] = {
    "one bit of a weight": lambda folder: flip(folder / TENSORS),
    "truncated": lambda folder: truncate(folder / TENSORS),
    "missing": lambda folder: (folder / TENSORS).unlink(),
    "empty": lambda folder: (folder / TENSORS).write_bytes(b""),
    "no record": lambda folder: (folder / "run.json").unlink(),
    "half a record": lambda folder: truncate(folder / "run.json"),
    "a record of another kind": lambda folder: (folder / "run.json").write_text("[]"),
    "another's tensors": lambda folder: shutil.copy(write(folder.parents[1] / "other", 5) / TENSORS, folder),
    "another's checkpoint": lambda folder: (
        shutil.rmtree(folder),
        shutil.copytree(write(folder.parents[1] / "other", 6, fingerprint="theirs"), folder),
    ),
    "an older one by a newer name": lambda folder: (
        shutil.rmtree(folder),
        shutil.copytree(write(folder.parents[1] / "older", 2), folder),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_by_loudly(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "state"
    write(root, 4)
    DAMAGES[damage](write(root, 6))
    saved = read(root)
    assert saved is not None and saved.folder.name == "step-00000004"
    said = capsys.readouterr().err
    assert "step-00000006: damaged checkpoint" in said and "trying the one before" in said


def test_a_checkpoint_of_other_parameters_is_passed_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 4)
    assert newest(tmp_path, "mine", ["a", "c"], Processes()) is None
    assert "of other parameters" in capsys.readouterr().err


def test_a_damaged_one_is_replaced_when_its_step_comes_again(tmp_path: Path) -> None:
    write(tmp_path, 4)
    truncate(write(tmp_path, 6) / TENSORS)
    write(tmp_path, 6)
    saved = read(tmp_path)
    assert saved is not None and len(saved.curve) == 6


def test_a_write_that_was_killed_leaves_nothing_that_counts(tmp_path: Path) -> None:
    write(tmp_path, 4)
    left = tmp_path / ".step-00000006.part"
    left.mkdir()
    (left / TENSORS).write_bytes(b"half")
    saved = read(tmp_path)
    assert saved is not None and len(saved.curve) == 4
    write(tmp_path, 8)
    assert not left.exists()


def test_a_disk_that_fills_up_stops_clearly_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 4)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # no file may grow beyond this
    try:
        with pytest.raises(TrainingError, match=r"could not write .*step-00000006.*step-00000004 is kept: start"):
            write(tmp_path, 6, scale=10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


@pytest.mark.parametrize("function", ["sha256_file", "_finish"])
def test_a_failure_after_the_tensors_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, function, fail)
        with pytest.raises(TrainingError, match="Input/output error; there is none before it"):
            write(tmp_path, 4)
    assert list(tmp_path.iterdir()) == []


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    record = json.loads((write(tmp_path, 2) / "run.json").read_text())
    assert record.keys() == {"fingerprint", "curve", "strategy", "files"}
