"""A real Slurm runs the training stages on two nodes, as snakemake submits them (docs/cluster.md)."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.distributed import slurm
from tests.distributed.conftest import ABSENT, CLUSTER, environment, installed
from tests.tiny import REPOSITORY

PLUGIN = "snakemake_executor_plugin_slurm"
STAGES = ["pretrain-attributes", "pretrain-alignment", "finetune-comments", "finetune-scores"]
STEPS = 100  # of the run that is cancelled after its first checkpoints
ON_TWO_NODES: dict[str, Any] = {"launcher": "srun", "nodes": 2, "processes": 1}
# No accounting here to ask, and less patience than on a cluster.
SETTINGS = [
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "1"),
    *("--seconds-between-status-checks", "1"),
]


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    """What commands of Slurm need to find the test's own."""
    if missing := slurm.missing():
        pytest.skip(f"Slurm is not installed: there is no {', '.join(missing)}")
    if not installed(PLUGIN, CLUSTER):
        pytest.skip(f"{PLUGIN} {ABSENT}")
    with tempfile.TemporaryDirectory() as folder, slurm.cluster(Path(folder)) as found:
        yield found


@pytest.fixture
def checkout(trained_world: Any) -> Any:
    """The tiny world with the pipeline's files; what comes before training is there, and no stage's output."""
    root = trained_world.layout.root
    for name in ("calm", "workflow"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(REPOSITORY / name, root)
    shutil.copy(trained_world.layout.lists / "unlabelled.parquet", trained_world.layout.lists / "generic.parquet")
    yaml = YAML(typ="safe")
    stages = yaml.load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    training = {name: stages[name] for name in ("pretrain", "finetune")}
    (root / "dvc.yaml").write_text(json.dumps({"stages": training}))  # is YAML too
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return trained_world


def test_two_nodes_train_all_stages_as_one_process_does(checkout: Any, variables: dict[str, str]) -> None:
    layout, alone = begin(checkout, STAGES, strategy=ON_TWO_NODES | {"kind": "deepspeed", "zero": 2})
    snakemake(layout.root, variables, "finetune").wait_for_success()
    for stage in STAGES:
        np.testing.assert_allclose(pd.read_csv(layout.curve(stage))["loss"], alone[stage]["loss"], rtol=1e-4)
    assert jobs(variables)[-4:] == ["COMPLETED 2 node[1-2] gres:gpu:1"] * 4


def test_one_node_trains_by_two_processes(checkout: Any, variables: dict[str, str]) -> None:
    layout, alone = begin(checkout, STAGES[:1], strategy={"kind": "ddp", "launcher": "torchrun", "processes": 2})
    snakemake(layout.root, variables, "pretrain@attributes").wait_for_success()
    np.testing.assert_allclose(pd.read_csv(layout.curve(STAGES[0]))["loss"], alone[STAGES[0]]["loss"], rtol=1e-4)
    assert jobs(variables)[-1].startswith("COMPLETED 1 node")


def test_a_job_that_is_cancelled_is_submitted_again_and_goes_on(checkout: Any, variables: dict[str, str]) -> None:
    long = {"pretrain__attributes__steps": STEPS}
    layout, _ = begin(checkout, STAGES[:1], strategy=ON_TWO_NODES | {"kind": "ddp"}, **long)
    running = snakemake(layout.root, variables, "pretrain@attributes")
    state = layout.state(STAGES[0])
    running.until(lambda: any(path.name >= "step-00000004" for path in state.glob("*/step-*")))
    subprocess.run(["scancel", "--user", getpass.getuser()], env=variables, check=True)
    running.wait_for_success()
    assert "pretrain attributes: resumed at step" in (layout.root / ".state/logs/pretrain@attributes.log").read_text()
    assert len(pd.read_csv(layout.curve(STAGES[0]))) == STEPS
    assert [job.split()[0] for job in jobs(variables)[-2:]] == ["CANCELLED", "COMPLETED"]


def begin(checkout: Any, stages: list[str], **changes: Any) -> tuple[Any, dict[str, pd.DataFrame]]:
    """Write params, take the outputs of one process away; the layout, and what that one learned."""
    layout = checkout.layout
    params = checkout.params(threads__pretrain=1, threads__finetune=1, **changes)
    (layout.root / "params.yaml").write_text(json.dumps(params.model_dump(mode="json")))
    alone = {stage: pd.read_csv(layout.curve(stage)) for stage in stages}
    for folder in ("models", "results"):
        shutil.rmtree(layout.root / folder)
    return layout, alone


def jobs(variables: dict[str, str]) -> list[str]:
    """State, nodes and GPUs of all jobs so far, in their order."""
    asked = ["squeue", "--states=all", "--noheader", "--sort=i", "--format=%T %D %N %b"]
    return subprocess.run(asked, env=variables, capture_output=True, text=True, check=True).stdout.splitlines()


class Submission:
    """A snakemake that submits stages and waits for them."""

    def __init__(self, root: Path, command: list[str], variables: dict[str, str]) -> None:
        self.root, self.said = root, root / "said"
        with self.said.open("w") as said:
            self.process = subprocess.Popen(command, cwd=root, env=variables, stdout=said, stderr=said)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that a job does."""
        while not condition():
            assert self.process.poll() is None, self.log()
            time.sleep(0.05)

    def wait_for_success(self) -> None:
        assert self.process.wait() == 0, self.log()

    def log(self) -> str:
        return "\n".join(path.read_text() for path in (self.said, *self.root.glob(".state/logs/*.log")))


def snakemake(root: Path, variables: dict[str, str], *arguments: str) -> Submission:
    """Submit stages with the house's profile."""
    bin_folder = Path(sys.executable).parent
    command = [
        *(str(bin_folder / "snakemake"), "--workflow-profile", "workflow/profiles/slurm"),
        *(*SETTINGS, *arguments),
    ]
    own = {"PATH": f"{bin_folder}:{variables['PATH']}", "XDG_CACHE_HOME": str(root / "cache")}
    return Submission(root, command, environment(CLUSTER) | own)
