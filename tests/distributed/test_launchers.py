"""A stage that DVC starts starts its own processes, by the launcher in params, and says how they ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from calm.layout import Layout
from calm.model.build import TRAINED
from calm.training.loop import processes
from calm.training.loop.engine import TrainingError
from calm.training.loop.worker import _hold
from calm.training.pretrain import pretrain
from calm.training.settings import Strategy
from tests.distributed.conftest import CLUSTER, environment, needs_deepspeed
from tests.tiny import REPOSITORY

DDP = {"kind": "ddp", "launcher": "torchrun", "processes": 2}
ZERO: dict[str, Any] = {"kind": "deepspeed", "processes": 2}
# Address in dvc.yaml, and how its processes are shared out and started. Each stage in each way, without the command and
# started once for all: test_two_processes.py.
COMMANDS = {
    "pretrain@attributes": ZERO | {"launcher": "torchrun", "zero": 2},
    "pretrain@alignment": ZERO | {"launcher": "deepspeed", "zero": 3},
    "finetune@comments": ZERO | {"launcher": "deepspeed", "zero": 2},
    "finetune@scores": ZERO | {"launcher": "torchrun", "zero": 3},
}
DYING_AS = {"torchrun": DDP, "deepspeed": ZERO | {"launcher": "deepspeed", "zero": 2}}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread in what is started too."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def world(trained_world: Any) -> Any:
    """A trained checkout with the configurations of DeepSpeed."""
    (trained_world.layout.root / "workflow").mkdir()
    (trained_world.layout.root / "workflow/deepspeed").symlink_to(REPOSITORY / "workflow/deepspeed")
    return trained_world


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors that a stage has left."""
    return {
        f"{file.name}: {key}": value for file in folder.rglob("*.safetensors") for key, value in load_file(file).items()
    }


@contextmanager
def learns_the_same(layout: Layout, section: str, run: str) -> Iterator[None]:
    """Inside, the stage runs again by several processes: it writes what one has written before."""
    folder = (layout.pretrained if section == "pretrain" else layout.finetuned)(run)
    curve_file = layout.curve(f"{section}-{run}")
    alone, weights = pd.read_csv(curve_file), weights_of(folder)
    assert weights
    curve_file.unlink()
    shutil.rmtree(folder)
    yield
    curve = pd.read_csv(curve_file)
    assert curve.columns.tolist() == alone.columns.tolist()
    np.testing.assert_allclose(curve["loss"], alone["loss"], rtol=1e-4)
    found = weights_of(folder)
    assert found.keys() == weights.keys()
    for key, value in found.items():
        torch.testing.assert_close(
            value, weights[key], rtol=1e-2, atol=1e-3, msg=lambda text, key=key: f"{key}: {text}"
        )
    assert not layout.state(f"{section}-{run}").exists()


def test_a_stage_trains_on_two_processes_and_writes_what_one_would(world: Any) -> None:
    with learns_the_same(world.layout, "pretrain", "alignment"):
        pretrain("alignment", world.params(strategy=DDP), world.layout)


@pytest.mark.parametrize("address", COMMANDS)
def test_the_command_that_dvc_runs_trains_by_deepspeed_what_one_process_would(world: Any, address: str) -> None:
    """LoRA under ZeRO-3 among them: what was shared out is whole again."""
    needs_deepspeed()
    section, _, run = address.partition("@")
    stage = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"][section]
    assert run in stage["foreach"]
    words = stage["do"]["cmd"].replace("${key}", run).split()
    params = world.params(strategy=COMMANDS[address], threads__pretrain=1, threads__finetune=1)
    root = world.layout.root
    (root / "params.yaml").write_text(json.dumps(params.model_dump(mode="json")))  # is YAML too
    with learns_the_same(world.layout, section, run):
        program = Path(sys.executable).with_name(words[0])
        done = subprocess.run(
            [program, *words[1:]], cwd=root, env=environment(CLUSTER), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


DYING = """
import os, signal
from calm.training.tuning import InstructionObjective
original = InstructionObjective.losses
def losses(self, step, part, read):
    if step == 5 and os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, step, part, read)
InstructionObjective.losses = losses
"""


@pytest.mark.parametrize("launcher", DYING_AS)
def test_a_process_that_dies_ends_the_stage_and_it_goes_on_later(
    world: Any, launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    layout, params = world.layout, world.params(strategy=DYING_AS[launcher])
    folders = []
    if launcher == "deepspeed":
        needs_deepspeed()
        folders = [CLUSTER]
    monkeypatch.setenv("PYTHONPATH", environment(*folders)["PYTHONPATH"])
    outputs = layout.pretrained("alignment") / TRAINED
    outputs.unlink()
    worker = tmp_path / "dying.py"
    worker.write_text(
        f"{DYING}\nimport sys\nfrom pathlib import Path\nfrom calm.training.loop.worker import main\n"
        "sys.exit(main(Path(sys.argv[1])))\n"
    )
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", environment(tmp_path, *folders)["PYTHONPATH"])
        patched.setattr(processes, "WORKER", "dying")
        with pytest.raises(TrainingError, match=r"pretrain: the processes ended .* died without a word.*are kept in"):
            pretrain("alignment", params, layout)
    assert not outputs.exists()
    assert [path.name for path in sorted(layout.state("pretrain-alignment").glob("*/step-*"))] == [
        "step-00000002",
        "step-00000004",
    ]
    capfd.readouterr()
    pretrain("alignment", params, layout)
    assert "pretrain alignment: resumed at step 4" in capfd.readouterr().err
    assert outputs.exists()


def test_a_launcher_that_is_not_there_is_named(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    params = world.params(strategy={"kind": "ddp", "launcher": "srun", "nodes": 2})
    with pytest.raises(TrainingError, match=r"srun is not here .*docs/cluster\.md"):
        pretrain("alignment", params, world.layout)


def test_a_second_start_is_kept_out_while_the_first_one_trains(tmp_path: Path) -> None:
    holding = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", holding, str(tmp_path / "lock")], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stdout.readline() == b"held\n"
        with (tmp_path / "lock").open("a") as lock, pytest.raises(TrainingError, match="processes of an earlier start"):
            _hold(lock, tmp_path)
        first.kill()


def test_processes_end_with_the_stage_that_started_them(tmp_path: Path) -> None:
    """Even when it is killed, so that nothing trains beside the next start."""
    code = f"""
import os, subprocess, sys
from calm.training.loop.processes import _die_with_parent
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=_die_with_parent)
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    child = int((tmp_path / "child").read_text())
    for _ in range(200):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        state = Path(f"/proc/{child}/stat")
        if state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("it lives on")


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"processes": 2}, "strategy: launcher, nodes and processes"),
        ({"kind": "ddp"}, "strategy.launcher"),
        ({"kind": "ddp", "launcher": "torchrun", "zero": 2}, "strategy.zero"),
        ({"kind": "deepspeed", "launcher": "torchrun"}, "strategy.zero"),
        ({"kind": "ddp", "launcher": "torchrun", "nodes": 2}, "strategy.launcher"),
        ({"kind": "ddp", "launcher": "srun"}, "strategy.launcher"),
    ],
)
def test_keys_that_do_not_fit_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Strategy(**{"kind": "single"} | changes)


def test_a_batch_that_processes_cannot_share_evenly_is_named(world: Any) -> None:
    with pytest.raises(ValueError, match=r"pretrain\.attributes\.batch_size \(8\) cannot be shared evenly by the 3"):
        world.params(strategy={"kind": "ddp", "launcher": "torchrun", "processes": 3})
