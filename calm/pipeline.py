"""dvc.yaml as rows for a scheduler. DVC decides what is stale; Snakemake runs it in parallel (workflow/).

The only module that imports DVC. `Repo.index` and `Stage.status` are not a documented interface: the version is
pinned in pyproject.toml, and tests/pipeline/test_rows.py holds this module to what it needs of them.

A stage that DVC calls up to date has a stamp file, any other has none; `plan` makes this true on every start, so
nothing is left of earlier runs that could disagree with DVC. Snakemake only sees stamps.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from calm.layout import Layout
from calm.settings import NonNegativeInt, PositiveInt, Section, checked

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

RULES = Path("workflow/rules")
STAMP_TIME = 1_000_000_000  # one time for all stamps, older than any run: only a job of this run triggers others


class Needs(Section):
    """`meta:` of a stage in dvc.yaml: what it needs on each node, threads for each of its processes."""

    threads: PositiveInt
    nodes: PositiveInt = 1
    processes: PositiveInt = 1
    gpus: NonNegativeInt
    mem_mb: PositiveInt
    minutes: PositiveInt


class Row(Needs):
    """One resolved stage; `threads` are the cores that it needs on each node, for all of its processes.

    Attributes:
        address: DVC's name of it, as in `dvc repro ADDRESS`.
        group: the name that its stage has in dvc.yaml (`evaluate` for `evaluate@scoring`).
        upstream: addresses of the stages whose outputs it reads.
        stamp: file that exists while the stage is up to date.
        upstream_stamps: stamps of `upstream`.
    """

    address: str
    group: str
    upstream: tuple[str, ...]
    stamp: str
    upstream_stamps: tuple[str, ...]

    @property
    def resources(self) -> dict[str, int | str]:
        """What Snakemake asks a cluster for. A job of several nodes starts its tasks itself, one on each (`srun`)."""
        of_node: dict[str, int | str] = {"mem_mb": self.mem_mb, "runtime": self.minutes}
        if self.nodes == 1:
            return of_node | {"gpu": self.gpus}
        gpus: dict[str, int | str] = {"gres": f"gpu:{self.gpus}", "tasks_per_gpu": 0} if self.gpus else {}
        return of_node | {"nodes": self.nodes, "tasks": self.nodes, "mpi": "srun"} | gpus


def plan(root: Path = Path(".")) -> list[Row]:
    """Rows of dvc.yaml in an order in which they can run; stamps are brought in line with `dvc status`."""
    from dvc.repo import Repo

    without_git(root)
    with Repo(str(root), _wait_for_lock=True) as repo:
        rows = resolve(repo, root)
        stale = stale_stages(repo)
    # A killed scheduler remembers its files as half-written. Stamps never are.
    shutil.rmtree(root / ".snakemake" / "incomplete", ignore_errors=True)
    stamps = Layout(root).state("stamps")
    keep = {Path(row.stamp).name for row in rows if row.address not in stale}
    stamps.mkdir(parents=True, exist_ok=True)
    for path in stamps.iterdir():
        if path.name not in keep:
            path.unlink()
    for name in sorted(keep):
        (stamps / name).touch()
        os.utime(stamps / name, (STAMP_TIME, STAMP_TIME))
    Layout(root).state("rows.json").write_bytes(TypeAdapter(list[Row]).dump_json(rows, indent=1))
    return rows


def planned(root: Path = Path(".")) -> list[Row]:
    """Rows that the running scheduler planned, for its jobs on other machines; DVC is not asked again."""
    return TypeAdapter(list[Row]).validate_json(Layout(root).state("rows.json").read_bytes())


def groups(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of every stage that dvc.yaml repeats (`foreach`), by its name there."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.group != row.address:
            found.setdefault(row.group, []).append(row)
    return found


def stale_stages(repo: Repo) -> set[str]:
    """Names of the stages that `dvc status` calls changed, and of those that another process runs right now."""
    from dvc.lock import LockError

    stale = set()
    with repo.lock:
        for stage in repo.index.stages:
            try:
                changed = bool(stage.status())
            except LockError:
                changed = True
            if changed:
                stale.add(stage.name)
    return stale


@contextmanager
def retiring(root: Path = Path(".")) -> Iterator[tuple[list[str], list[str]]]:
    """Change params.yaml inside; outputs that no stage makes any more then leave the workspace.

    Some stages read whole folders (all prepared datasets, all results): leftovers there would be taken for changes.

    Yields:
        Two lists, filled at the end: what was removed (DVC's cache has it), and what was not, since only the
        workspace has it.
    """
    from dvc.repo import Repo

    without_git(root)
    removed: list[str] = []
    kept: list[str] = []
    with Repo(str(root), _wait_for_lock=True) as repo:
        before = {out.fs_path: out for out in repo.index.outs if out.exists}
        yield removed, kept
        with Repo(str(root), _wait_for_lock=True) as changed:
            after = {out.fs_path for out in changed.index.outs}
        for path in sorted(set(before) - after):
            out = before[path]
            if out.changed():
                kept.append(str(out))
            else:
                out.remove()
                removed.append(str(out))


def without_git(root: Path) -> None:
    """Tell DVC, in its local settings, that a downloaded archive has no history; else it refuses to work."""
    local = root / ".dvc" / "config.local"
    if not (root / ".git").exists() and not local.exists():
        local.write_text("[core]\n    no_scm = true\n", encoding="utf-8")


def resolve(repo: Repo, root: Path) -> list[Row]:
    """The graph of dvc.yaml, upstream first."""
    import networkx as nx

    # Snakemake compares a rule's text and inputs with those that made a file. A stamp's name therefore stands for
    # them: after a change there is no old stamp to compare with, and DVC alone says what is stale.
    rules = hashlib.sha256()
    for path in sorted((root / RULES).glob("*.smk")):
        rules.update(path.read_bytes())
    rows: dict[str, Row] = {}
    for stage in nx.lexicographical_topological_sort(repo.index.graph.reverse(), key=lambda stage: stage.name):
        upstream = sorted(before.name for before in repo.index.graph.successors(stage))
        rows[stage.name] = row_of(stage, [rows[address] for address in upstream], rules.hexdigest())
    return list(rows.values())


def row_of(stage: PipelineStage, upstream: Sequence[Row], rules: str) -> Row:
    """One stage as a row.

    Raises:
        ParamsError: its `meta:` in dvc.yaml lacks a number, or has one that cannot be.
    """
    address = stage.name
    needs = checked(Needs, stage.meta or {}, f"dvc.yaml, stage {address}", "meta.")
    stamps = tuple(row.stamp for row in upstream)
    identity = hashlib.sha256(json.dumps([address, stamps, rules]).encode()).hexdigest()
    return Row(
        **needs.model_dump() | {"threads": needs.threads * needs.processes},
        address=address,
        group=address.partition("@")[0],
        upstream=tuple(row.address for row in upstream),
        stamp=Layout().state(f"stamps/{address}.{identity[:16]}").as_posix(),
        upstream_stamps=stamps,
    )
