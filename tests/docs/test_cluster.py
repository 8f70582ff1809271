"""docs/cluster.md names each key of the strategy, stages and files that exist, and marks what no test runs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from calm.training.settings import Strategy

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/cluster.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = "apt|calm|dvc|git|hf|make|pip|pytest|snakemake"
SLURM = "distributed/test_slurm.py::test_a_dry_run_shows_training_stages_as_jobs_of_four_nodes"
REMOTE = "distributed/test_remote.py::test_models_are_pushed_to_s3_and_pulled_elsewhere"
LAUNCHERS = "distributed/test_launchers.py"
ENGINES = "pipeline/test_both_engines.py"
# A command of the page, the test that runs it, and what stands in that test's file or in the conftest.py beside it.
RUN = {
    "export PYTHONPATH=$PWD/.venv/cluster": (SLURM, "environment(CLUSTER)"),
    "export XDG_CACHE_HOME=$PWD/.cache": (
        f"{ENGINES}::test_parallel_jobs_give_the_lock_and_files_of_dvc_repro",
        '{"HOME": "/proc/none", "XDG_CACHE_HOME": ',
    ),
    "snakemake --workflow-profile workflow/profiles/slurm --cores 64 -n evaluate": (
        SLURM,
        '["--workflow-profile", "workflow/profiles/slurm", "--cores", "64", "-n", "evaluate"]',
    ),
    "--nodes=4 --ntasks=4 --gres=gpu:8": (
        "distributed/test_slurm.py::test_a_job_of_several_nodes_asks_for_one_task_and_all_gpus_on_each",
        '"--nodes=4", "--ntasks=4", "--cpus-per-task=16", "--gres=gpu:8"',
    ),
    "--slurm-status-command squeue": (
        "distributed/test_slurm_cluster.py::test_two_nodes_train_all_stages_as_one_process_does",
        '"--slurm-status-command", "squeue"',
    ),
    "dvc repro": (f"{ENGINES}::test_parallel_jobs_give_the_lock_and_files_of_dvc_repro", 'dvc("repro"'),
    "snakemake -j8": (f"{ENGINES}::test_parallel_jobs_give_the_lock_and_files_of_dvc_repro", 'snakemake, "-j8"'),
    "calm finetune scores": (
        f"{LAUNCHERS}::test_the_command_that_dvc_runs_goes_on_after_a_death_and_writes_what_one_process_would",
        '"finetune@scores": {"kind": "deepspeed"',
    ),
    "dvc remote add --default store s3://bucket/calm": (REMOTE, 'dvc(here, "remote", "add", "--default", "store"'),
    "dvc remote modify store endpointurl https://s3.example.org": (
        REMOTE,
        'dvc(here, "remote", "modify", "store", "endpointurl", endpoint)',
    ),
    "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...": (REMOTE, '"AWS_SECRET_ACCESS_KEY": "test"'),
    "export PYTHONPATH=$PWD/.venv/remote": (REMOTE, '"PYTHONPATH": str(REMOTE)'),
    "dvc push": (REMOTE, 'dvc(here, "push")'),
    "dvc pull models/finetune/scores": (REMOTE, 'dvc(elsewhere, "pull", "models")'),
    "calm score --model models/finetune/scores photo.jpg": (
        "test_cli.py::test_with_a_checkout_named_photographs_stay_those_of_the_folder_one_is_in",
        '"score", "--model"',
    ),
}
# Run below, as they stand on the page.
SETTINGS = (
    "calm profile use paper",
    "dvc cache dir --local /shared/calm-cache",
    "dvc config --local cache.type symlink",
)


def commands() -> dict[str, bool]:
    """Commands of the page (lines of its blocks, and code in its text that begins as one); whether each is marked."""
    found: dict[str, bool] = {}
    for block in BLOCK.findall(PAGE):
        above = ""
        for line in filter(None, block.splitlines()):
            if line.startswith("#"):
                above = line
                continue
            command, *comment = re.split(r"\s+# ", line, maxsplit=1)
            found[command] = "not run" in " ".join([above, *comment])
            above = ""
    text = re.sub(r"\s+", " ", BLOCK.sub("", PAGE))
    for command, mark in re.findall(rf"`((?:(?:{PROGRAMS}) |--)[^`]+)`( \(not run)?", text):
        found[command] = found.get(command, False) or bool(mark)
    return found


def in_shell(command: str, folder: Path, **variables: str) -> None:
    """Run a command of the page in a folder, with this environment's programs."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_CACHE_HOME": str(folder / ".home"), **variables}
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_is_run_by_a_test_or_marked_as_not_run() -> None:
    found = commands()
    assert len(found) > 25
    unmarked = {command for command, marked in found.items() if not marked}
    here = {*SETTINGS, *script()}
    assert unmarked == {*RUN, *here}, "mark it `not run`, or name the test that runs it in RUN"


@pytest.mark.parametrize("command", RUN)
def test_the_test_that_runs_it_exists_and_does(command: str) -> None:
    test, words = RUN[command]
    path, name = test.split("::")
    file = REPOSITORY / "tests" / path
    source = file.read_text(encoding="utf-8")
    assert name in [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)], test
    beside = file.with_name("conftest.py")
    assert words in source or (beside.is_file() and words in beside.read_text(encoding="utf-8")), words


def test_settings_of_the_page_are_accepted(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "profiles", tmp_path / "profiles")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    for command in SETTINGS:
        in_shell(command, tmp_path)
    params = YAML(typ="safe").load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    assert params["profile"] == "paper"
    local = (tmp_path / ".dvc/config.local").read_text(encoding="utf-8")
    assert "dir = /shared/calm-cache" in local and "type = symlink" in local


def script() -> list[str]:
    """The page's lines that write an srun which knows SLURM_CONF."""
    (block,) = [block for block in BLOCK.findall(PAGE) if "printf" in block]
    lines: list[str] = block.splitlines()
    return lines


def test_the_script_that_is_put_before_srun_names_the_configuration(tmp_path: Path) -> None:
    for folder in (".venv/bin", "slurm"):
        (tmp_path / folder).mkdir(parents=True)
    real = tmp_path / "slurm/srun"
    real.write_text('#!/bin/sh\nprintf "%s|" "$SLURM_CONF" "$@" > said\n')
    real.chmod(0o755)
    for command in script():
        in_shell(command, tmp_path, PATH=f"{real.parent}{os.pathsep}{os.environ['PATH']}", SLURM_CONF="/etc/a.conf")
    in_shell(".venv/bin/srun --nodes=4 'two words'", tmp_path, SLURM_CONF="")
    assert (tmp_path / "said").read_text() == "/etc/a.conf|--nodes=4|two words|"


def test_every_key_and_value_of_the_strategy_is_explained() -> None:
    for key, field in Strategy.model_fields.items():
        assert f"`{key}`" in PAGE, key
        for value in getattr(field.annotation, "__args__", ()):
            assert re.search(rf"\b{value}\b", PAGE), (key, value)


def test_stages_that_need_internet_are_stages() -> None:
    stages = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    (line,) = re.findall(r"^dvc repro (.+)$", PAGE, re.MULTILINE)
    assert set(line.split()) <= set(stages)


def test_files_that_it_names_exist() -> None:
    for name in (
        "workflow/deepspeed/zero2.json",
        "workflow/deepspeed/zero3.json",
        "workflow/profiles/slurm/config.yaml",
    ):
        assert name in PAGE or Path(name).name in PAGE
        assert (REPOSITORY / name).is_file()
