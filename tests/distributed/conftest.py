"""Two processes, started once, do what all tests of test_two_processes.py look at."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from calm.training.loop.engine import train
from calm.training.loop.processes import command
from calm.training.settings import Strategy
from tests import tiny
from tests.distributed.net import Killed, Net, run_in

CLUSTER, REMOTE = (Path(sys.prefix) / extra for extra in ("cluster", "remote"))  # by `make apart`
ABSENT = "is not installed: make apart"


def installed(package: str, folder: Path) -> bool:
    """Whether processes that are started with `folder` on their path can import a package."""
    return importlib.util.find_spec(package) is not None or (folder / package).is_dir()


def environment(*folders: Path) -> dict[str, str]:
    """As this process's, for one thread, with this checkout's tests and the packages in `folders` importable."""
    own = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (tiny.REPOSITORY, *folders))),
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return {**os.environ, **own}


def needs_deepspeed() -> None:
    """Skip a test where DeepSpeed is not."""
    if not installed("deepspeed", CLUSTER):
        pytest.skip(f"DeepSpeed {ABSENT}")


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def two(trained_template: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """What two processes of torchrun saw in the scenarios of two.py, by name."""
    out = tmp_path_factory.mktemp("two")
    root = out / "checkout"
    shutil.copytree(trained_template.layout.root, root)
    shutil.copytree(tiny.REPOSITORY / "workflow", root / "workflow")
    third = root / "workflow/deepspeed/zero3.json"
    config = json.loads(third.read_text())
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0  # or small weights would not be shared out
    third.write_text(json.dumps(config))
    begin_alone(out)
    own = command(Strategy(kind="ddp", launcher="torchrun", processes=2), threads=1)
    done = subprocess.run(  # a process that hangs ends itself, and says where it stood
        [*own, "tests.distributed.two", str(out), str(root), json.dumps(asdict(trained_template.parts))],
        cwd=root,
        env=environment(CLUSTER),
        capture_output=True,
        text=True,
        check=False,
    )

    def seen(name: str) -> Any:
        if (reason := out / f"{name}.txt").exists():
            pytest.skip(reason.read_text())
        found = out / f"{name}.json"
        assert found.exists(), done.stderr[-4000:]
        return json.loads(found.read_text())

    return seen


def begin_alone(out: Path) -> None:
    """Leave the state of a run that one process began; two go on with it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.raises(Killed):
        train(Net(stop=11, noise=0.0), run_in(out / "states/alone"))
    torch.set_num_threads(threads)
