"""How much sooner `snakemake -j8 evaluate` ends than `-j1`, with equal outputs.

    python benchmarks/evaluate.py [--jobs 8]

In a workspace whose pipeline is up to date. The evaluations and the report are made twice in a clone that has no cache
of runs, so that each of them is computed. What they wrote is compared, by DVC's hashes, before a time is printed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

BIN = Path(sys.executable).parent
GROUPS = ("evaluate", "report")


def run(folder: Path, *command: str) -> None:
    """A command of this environment; its output is shown if it fails."""
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed in {folder}:\n{done.stdout}\n{done.stderr}")


def clone(workspace: Path, folder: Path) -> None:
    """The commit with the workspace's parameters and outputs, but without its cache of runs."""
    run(workspace, "git", "clone", "--quiet", "--no-hardlinks", str(workspace), str(folder))
    for name in ("params.yaml", "dvc.lock"):
        shutil.copy(workspace / name, folder / name)
    shutil.copytree(workspace / ".dvc/cache/files", folder / ".dvc/cache/files", copy_function=os.link)
    run(folder, "dvc", "checkout", "--quiet")


def forget(folder: Path) -> None:
    """Take the evaluations and the report out of folder, lock and cache of runs: DVC would bring them back."""
    lock = YAML(typ="safe").load(folder / "dvc.lock")
    for name in [name for name in lock["stages"] if name.split("@")[0] in GROUPS]:
        for output in lock["stages"].pop(name)["outs"]:
            path = folder / output["path"]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    YAML().dump(lock, folder / "dvc.lock")
    shutil.rmtree(folder / ".dvc/cache/runs", ignore_errors=True)


def evaluated(folder: Path, jobs: int) -> tuple[float, dict[str, Any]]:
    """Seconds that the evaluations and the report take with so many jobs at once, and hashes of what they wrote."""
    forget(folder)
    started = time.perf_counter()
    run(folder, "snakemake", f"-j{jobs}", "evaluate")
    seconds = time.perf_counter() - started
    stages = YAML(typ="safe").load(folder / "dvc.lock")["stages"]
    return seconds, {name: told["outs"] for name, told in stages.items() if name.split("@")[0] in GROUPS}


def main() -> None:
    """Print equality, seconds and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory(dir=".") as temporary:
        folder = Path(temporary).resolve() / "workspace"
        clone(Path.cwd(), folder)
        (one_by_one, first), (together, second) = (evaluated(folder, number) for number in (1, jobs))
    assert first == second, "the outputs differ"
    print(f"{len(first)} stages, outputs equal; {os.cpu_count()} cores")
    print(f"-j1 {one_by_one:.0f} s   -j{jobs} {together:.0f} s")
    print(f"ratio {one_by_one / together:.2f}")


if __name__ == "__main__":
    main()
