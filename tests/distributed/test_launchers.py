"""A stage that DVC starts starts its own processes, by the launcher in params, and says how they ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from typer.testing import CliRunner

from calm.cli import app
from calm.cli.stages import THREAD_VARIABLES
from calm.training.loop import processes
from calm.training.loop.engine import TrainingError
from calm.training.loop.worker import _hold
from calm.training.pretrain import pretrain
from calm.training.settings import Strategy
from tests.distributed.conftest import CLUSTER, environment, needs_deepspeed
from tests.tiny import REPOSITORY

# Address in dvc.yaml, and how its processes are shared out and started. Each stage in each way, without the command and
# started once for all: test_two_processes.py.
STARTS = {
    "pretrain@alignment": {"kind": "ddp", "launcher": "torchrun", "processes": 2},
    "finetune@scores": {"kind": "deepspeed", "launcher": "deepspeed", "processes": 2, "zero": 3},
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread in what is started too."""
    for name, value in {**environment(), **dict.fromkeys(THREAD_VARIABLES, "1")}.items():
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


DYING = """
import os, signal, sys
from pathlib import Path
from calm.training.loop.worker import main
from calm.training.tuning import InstructionObjective
original = InstructionObjective.losses
def losses(self, step, part, read):
    if step == 5 and os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, step, part, read)
InstructionObjective.losses = losses
sys.exit(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("address", STARTS)
def test_the_command_that_dvc_runs_goes_on_after_a_death_and_writes_what_one_process_would(
    world: Any, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """LoRA under ZeRO-3 among them: what was shared out is whole again."""
    packages = []
    if STARTS[address]["kind"] == "deepspeed":
        needs_deepspeed()
        packages = [CLUSTER]
    monkeypatch.setenv("PYTHONPATH", environment(*packages)["PYTHONPATH"])
    section, _, run = address.partition("@")
    stage = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"][section]
    assert run in stage["foreach"]
    program, *words = stage["do"]["cmd"].replace("${key}", run).split()
    assert program == "calm"
    params = world.params(strategy=STARTS[address], threads__pretrain=1, threads__finetune=1)
    layout, root = world.layout, world.layout.root
    (root / "params.yaml").write_text(json.dumps(params.model_dump(mode="json")))  # is YAML too
    monkeypatch.chdir(root)
    folder = (layout.pretrained if section == "pretrain" else layout.finetuned)(run)
    curve_file, state = layout.curve(f"{section}-{run}"), layout.state(f"{section}-{run}")
    alone, weights = pd.read_csv(curve_file), weights_of(folder)
    assert weights
    curve_file.unlink()
    shutil.rmtree(folder)

    (tmp_path / "dying.py").write_text(DYING)
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", environment(tmp_path, *packages)["PYTHONPATH"])
        patched.setattr(processes, "WORKER", "dying")
        died = CliRunner().invoke(app, words)
    assert died.exit_code == 1
    assert re.search(rf"{section}: the processes ended .* died without a word.*are kept in", died.stderr), died.output
    assert not list(folder.rglob("*.safetensors"))
    assert [path.name for path in sorted(state.glob("*/step-*"))] == ["step-00000002", "step-00000004"]

    capfd.readouterr()
    done = CliRunner().invoke(app, words)
    said = capfd.readouterr().err
    assert done.exit_code == 0, done.output + said
    assert f"{section} {run}: resumed at step 4" in said
    curve = pd.read_csv(curve_file)
    assert curve.columns.tolist() == alone.columns.tolist()
    np.testing.assert_allclose(curve["loss"], alone["loss"], rtol=1e-4)
    found = weights_of(folder)
    assert found.keys() == weights.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, weights[key], rtol=1e-2, atol=1e-3, msg=lambda m, k=key: f"{k}: {m}")
    assert not state.exists()


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
