"""The training stages as multi-node jobs of Slurm, from `meta:` in dvc.yaml."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from calm.params import load_params
from calm.pipeline import Row
from calm.profiles import use
from calm.training.loop.processes import command
from tests.distributed.conftest import ABSENT, CLUSTER, environment, installed
from tests.tiny import REPOSITORY

PLUGIN = "snakemake_executor_plugin_slurm"


def needs_plugin() -> None:
    if not installed(PLUGIN, CLUSTER):
        pytest.skip(f"{PLUGIN} {ABSENT}")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The pipeline's own files, with the profile `paper` on four nodes of eight GPUs."""
    for name in ("Snakefile", "dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for name in ("workflow", "profiles"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    params = tmp_path / "params.yaml"
    use("paper", params, tmp_path / "profiles")
    text = re.sub(r"launcher: torchrun", "launcher: srun", params.read_text(encoding="utf-8"))
    params.write_text(re.sub(r"(?m)^  nodes: 1$", "  nodes: 4", text), encoding="utf-8")
    assert load_params(params).strategy.world == 32
    return tmp_path


def test_a_dry_run_shows_training_stages_as_jobs_of_four_nodes(house: Path) -> None:
    needs_plugin()
    bin_folder = Path(sys.executable).parent
    words = ["--workflow-profile", "workflow/profiles/slurm", "--cores", "64", "-n", "evaluate"]  # as docs/cluster.md
    done = subprocess.run(
        [bin_folder / "snakemake", *words],
        cwd=house,
        env={
            **environment(CLUSTER),
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(house / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    jobs = dict(re.findall(r"^rule ([^:\n]+):\n((?:    .*\n)+)", output, flags=re.MULTILINE))
    for stage in ("pretrain@attributes", "pretrain@alignment", "finetune@comments", "finetune@scores"):
        for wanted in ("nodes=4", "tasks=4", "mpi=srun", "gres=gpu:8", "tasks_per_gpu=0", "mem_mb=512000"):
            assert wanted in jobs[stage], (stage, wanted, jobs[stage])
        assert "slurm_partition=gpu" in jobs[stage]
        assert re.search(r"threads: 16\b", jobs[stage])  # two for each of eight processes
    assert "nodes=" not in jobs["split"] and "mpi=" not in jobs["split"]


def row(**changes: Any) -> Row:
    numbers = {"threads": 16, "nodes": 4, "gpus": 8, "mem_mb": 1000, "minutes": 9} | changes
    stamps = {"stamp": "stamp", "upstream": (), "upstream_stamps": ()}
    return Row(address="finetune@scores", group="finetune", **stamps, **numbers)


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Row], str]:
    """What the plugin would say to sbatch about a row."""
    needs_plugin()
    monkeypatch.syspath_prepend(CLUSTER)
    submit = importlib.import_module(f"{PLUGIN}.submit_string")
    utils = importlib.import_module(f"{PLUGIN}.utils")

    class Resources(dict[str, Any]):
        __getattr__ = dict.__getitem__

    def said(of: Row) -> str:
        job = SimpleNamespace(resources=Resources(of.resources), threads=of.threads)
        params = dict.fromkeys(("run_uuid", "slurm_logfile", "comment_str", "account", "partition"), "x")
        call: str = submit.get_submit_command(job, params | {"workdir": "."}) + utils.set_gres_string(job)
        return call

    return said


def test_a_job_of_several_nodes_asks_for_one_task_and_all_gpus_on_each(submitted: Callable[[Row], str]) -> None:
    call = submitted(row())
    for wanted in ("--nodes=4", "--ntasks=4", "--cpus-per-task=16", "--gres=gpu:8", "--mem 1000", "-t 9"):
        assert wanted in call
    assert "per-gpu" not in call and "--gpus" not in call


def test_a_job_of_several_nodes_without_gpus_asks_for_none(submitted: Callable[[Row], str]) -> None:
    assert "gpu" not in submitted(row(gpus=0))


def test_a_job_of_one_node_asks_for_its_gpus(submitted: Callable[[Row], str]) -> None:
    call = submitted(row(nodes=1))
    assert "--gpus=8" in call and "--nodes" not in call and "--cpus-per-task=16" in call


def test_the_stage_starts_one_torchrun_on_each_node(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    words = command(load_params(house / "params.yaml").strategy, threads=2)
    assert words[0] == "srun"
    for wanted in ("--nodes=4", "--ntasks=4", "--ntasks-per-node=1", "--cpus-per-task=16", "--kill-on-bad-exit=1"):
        assert words.index(wanted) < words.index(sys.executable)
    for wanted in ("--nproc-per-node=8", "--nnodes=4", "--rdzv-backend=c10d", "--rdzv-id=77"):
        assert words.index(wanted) > words.index(sys.executable)
