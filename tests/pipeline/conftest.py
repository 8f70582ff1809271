"""A toy project with the house's Snakefile and rules: four small stages, three of them repeated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests import forked

REPOSITORY = Path(__file__).parents[2]

DVC = """\
stages:
  fetch:
    foreach: ${datasets}
    do:
      cmd: sh step.sh raw/${key} code/fetch.txt ${item.size}
      deps: [code/fetch.txt]
      params: ["datasets.${key}"]
      outs: ["raw/${key}"]
      meta: &meta {threads: "${threads}", gpus: 0, mem_mb: 100, minutes: 1}
  train:
    foreach: ${train}
    do:
      cmd: sh step.sh models/${key} raw code/train.txt ${item.steps}
      deps: [raw, code/train.txt]
      params: ["train.${key}.steps"]
      outs: ["models/${key}"]
      meta: *meta
  judge:
    foreach: ${tasks}
    do:
      cmd: sh step.sh results/${key} models ${item.bins}
      deps: [models]
      params: ["tasks.${key}"]
      outs: ["results/${key}"]
      meta: *meta
  report:
    cmd: sh step.sh report.txt results
    deps: [results]
    outs: [report.txt]
    meta: *meta
"""

PARAMS = """\
threads: 1
datasets: {one: {size: 10}, two: {size: 20}}
train: {a: {steps: 1}, b: {steps: 1}}
tasks: {x: {bins: 3}, y: {bins: 3}}
"""

ALL = ["fetch@one", "fetch@two", "judge@x", "judge@y", "report", "train@a", "train@b"]

# Appends a line to `ran` for every real execution, and writes what it was given: arguments, and the bytes it reads.
STEP = """\
set -eu
echo "$DVC_STAGE" >> ran
if [ -e "die-in-$(basename "$1")" ]; then kill -9 $$; fi
if [ -e "wait-in-$(basename "$1")" ]; then touch waiting; sleep 60; fi
out=$1; shift
mkdir -p "$(dirname "$out")"
{ echo "$@"; find "$@" -type f 2>/dev/null | sort | xargs cat; } | sha256sum > "$out"
"""


def dvc(*arguments: str) -> int:
    from dvc.cli import main

    return int(main([*arguments]))


def snakemake(*arguments: str) -> None:
    from snakemake.cli import main

    main([*arguments])


@dataclass(frozen=True)
class Toy:
    """A checkout of the toy project."""

    root: Path

    def environment(self) -> dict[str, str]:
        """The environment that the tests run in, with caches of its own; its home is none, as on some clusters."""
        bin_folder = Path(sys.executable).parent
        cache = self.root / ".state" / "home"
        own = {"HOME": "/proc/none", "XDG_CACHE_HOME": str(cache)}
        return {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", **own}

    def start(self, program: forked.Main, *arguments: str, out: Path | str = os.devnull) -> BaseProcess:
        """Start `dvc` or `snakemake` here."""
        return forked.start(program, *arguments, folder=self.root, environment=self.environment(), out=out)

    def run(self, program: forked.Main, *arguments: str, expected: int) -> str:
        """Run it; its output, standard error included."""
        said = Path(f"{self.root}.said")
        process = self.start(program, *arguments, out=said)
        process.join()
        assert process.exitcode == expected, said.read_text()
        return said.read_text()

    def dvc(self, *arguments: str, expected: int = 0) -> str:
        return self.run(dvc, *arguments, expected=expected)

    def snakemake(self, *arguments: str, expected: int = 0) -> str:
        return self.run(snakemake, "-j8", *arguments, expected=expected)

    def executed(self) -> list[str]:
        """Stages whose command ran since the last call."""
        log = self.root / "ran"
        lines = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(lines)

    def lock(self) -> Any:
        return YAML(typ="safe").load((self.root / "dvc.lock").read_text())

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def settled(self) -> bool:
        """Both tools say that nothing is to be done."""
        return (
            "up to date" in self.dvc("status")
            and "Nothing to be done" in self.snakemake("-n")
            and self.executed() == []
        )

    def clone(self, target: Path) -> Toy:
        subprocess.run(["git", "clone", "-q", str(self.root), str(target)], check=True)
        return Toy(target)


def commit(root: Path) -> None:
    """Commit everything that is not ignored."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    subprocess.run(["git", *identity, "commit", "-qm", "state"], cwd=root, check=True)


def build(root: Path) -> None:
    """Write and commit the toy project."""
    (root / "code").mkdir(parents=True)
    (root / "code/fetch.txt").write_text("fetch 1\n")
    (root / "code/train.txt").write_text("train 1\n")
    (root / "dvc.yaml").write_text(DVC)
    (root / "params.yaml").write_text(PARAMS)
    (root / "step.sh").write_text(STEP)
    ignored = ("raw", "models", "results", "report.txt", "ran", "waiting", "*-in-*", ".state", ".snakemake", "dvc")
    (root / ".gitignore").write_text("".join(f"/{name}\n" for name in ignored))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(REPOSITORY / name, root)
    shutil.copytree(REPOSITORY / "workflow", root / "workflow")
    (root / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root / name)
    subprocess.run(["git", "init", "-q", "-b", "main", str(root)], check=True)
    commit(root)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project before anything ran, and after `dvc repro`."""
    folder = tmp_path_factory.mktemp("toys")
    build(folder / "fresh")
    shutil.copytree(folder / "fresh", folder / "finished")
    finished = Toy(folder / "finished")
    finished.dvc("repro")
    assert finished.executed() == ALL
    return folder


@pytest.fixture
def toy(templates: Path, tmp_path: Path) -> Toy:
    """A committed toy project in which nothing ran yet."""
    return Toy(shutil.copytree(templates / "fresh", tmp_path / "toy"))


@pytest.fixture
def finished(templates: Path, tmp_path: Path) -> Toy:
    """The same after `dvc repro`; its lock is not committed."""
    return Toy(shutil.copytree(templates / "finished", tmp_path / "finished"))
