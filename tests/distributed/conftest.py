"""Two processes, started once, do what all tests here look at."""

from __future__ import annotations

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

from tests import tiny

Seen = Callable[[str], Any]


def environment() -> dict[str, str]:
    """As this process's, for one thread and with this checkout's tests importable."""
    own = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(tiny.REPOSITORY),
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return {**os.environ, **own}


@pytest.fixture(scope="session")
def two(trained_template: Any, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What the scenarios of two.py saw, by name."""
    out = tmp_path_factory.mktemp("two")
    root = out / "checkout"
    shutil.copytree(trained_template.layout.root, root)
    shutil.copytree(tiny.REPOSITORY / "workflow", root / "workflow")
    third = root / "workflow/deepspeed/zero3.json"
    config = json.loads(third.read_text())
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0  # or so small weights would not be shared out
    third.write_text(json.dumps(config))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [str(Path(__file__).with_name("two.py")), str(out), str(root), json.dumps(asdict(trained_template.parts))]
    done = subprocess.run(
        [*launcher, *script], cwd=root, env=environment(), capture_output=True, text=True, check=False, timeout=1800
    )

    def seen(name: str) -> Any:
        if (reason := out / f"{name}.txt").exists():
            pytest.skip(reason.read_text())
        found = out / f"{name}.json"
        assert found.exists(), done.stderr[-4000:]
        return json.loads(found.read_text())

    return seen
