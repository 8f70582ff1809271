"""dvc.yaml says what the rest of the house says: layout, params, command line, and the code that each stage runs."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML
from typer.main import get_command

from calm.cli import app
from calm.layout import Layout
from calm.params import load_params
from tests.imports import MODULES, imported
from tests.pipeline.conftest import REPOSITORY

PARAMS = load_params(REPOSITORY / "params.yaml")

# Stage -> the function that it runs (calm.cli.stages).
FUNCTIONS = {
    "fetch": "calm.data.sources:fetch",
    "prepare": "calm.data.prepare:prepare",
    "split": "calm.data.splits:split",
    "filter_leakage": "calm.data.leakage.stage:filter_leakage",
    "generate_texts": "calm.writing.stage:generate_texts",
    "build_instructions": "calm.instructions.stage:build_instructions",
    "pretrain": "calm.training.pretrain:pretrain",
    "finetune": "calm.training.finetune:finetune",
    "evaluate": "calm.evaluation.stage:evaluate",
    "ablate": "calm.experiments:ablate",
    "cross_validate": "calm.experiments.cross_validation:cross_validate",
    "report": "calm.report.stage:report",
}

# How things are named, read, written, checked and seeded. A change there that changed results would be a bug, and
# tests pin it; as a dependency, every edit of a docstring would train all models again.
PLUMBING = {
    "calm",
    "calm.data.settings",
    "calm.data.sources",
    "calm.evaluation.settings",
    "calm.settings",
    "calm.io",
    "calm.layout",
    "calm.seeds",
    # They bring bytes that hashes check, or only tell people something.
    "calm.data",
    "calm.data.obtain.ways",
    "calm.data.progress",
}
IMPORTED = cache(lambda path: [*imported(path)])
# Imported by a source, but for its labels and views: `prepare` makes those.
NOT_FETCHED = ("calm.attributes", "calm.data.store")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Stages of dvc.yaml as DVC resolves them with this params.yaml."""
    root = tmp_path_factory.mktemp("house")
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, root)
    with Repo(str(root)) as repo:
        yield {stage.name: stage for stage in repo.index.stages}


def group(name: str) -> str:
    return name.partition("@")[0]


def test_every_stage_is_there_for_everything_that_params_name(stages: dict[str, Any]) -> None:
    repeated = {
        "fetch": list(PARAMS.data.datasets),
        "prepare": list(PARAMS.data.datasets),
        "pretrain": ["attributes", "alignment"],
        "finetune": ["comments", "scores"],
        "evaluate": list(PARAMS.evaluation.tasks),
        "ablate": list(PARAMS.ablations),
        "cross_validate": list(PARAMS.cross_validations),
    }
    expected = {f"{stage}@{name}" for stage, names in repeated.items() for name in names}
    assert set(stages) == expected | (FUNCTIONS.keys() - repeated.keys())


def test_outputs_are_those_of_the_layout(stages: dict[str, Any]) -> None:
    layout = Layout()
    roles = PARAMS.data.roles.model_dump()
    expected = {
        *(layout.raw(name) for name in PARAMS.data.datasets),
        *(layout.prepared(name) for name in PARAMS.data.datasets),
        layout.splits,
        *(layout.lists / f"{role}.parquet" for role in roles),
        layout.lists / "removed.parquet",
        layout.lists / "leakage.json",
        layout.texts,
        layout.prompts,
        layout.rejected_texts,
        layout.text_gate,
        layout.text_confusion,
        *(layout.instructions / f"{use}.parquet" for use in ("generic", "comments", "scores")),
        *(layout.pretrained(run) for run in ("attributes", "alignment")),
        *(layout.finetuned(run) for run in ("comments", "scores")),
        *(layout.curve(f"pretrain-{run}") for run in ("attributes", "alignment")),
        *(layout.curve(f"finetune-{run}") for run in ("comments", "scores")),
        *(
            layout.result(task) / part
            for task in PARAMS.evaluation.tasks
            for part in ("metrics.json", "predictions.parquet", "plots")
        ),
        *(layout.ablation(name) / "predictions" for name in PARAMS.ablations),
        *(layout.digest(task) for task in PARAMS.evaluation.tasks),
        *(layout.ablation(name) / "metrics.json" for name in PARAMS.ablations),
        *(layout.digest(f"ablate-{name}") for name in PARAMS.ablations),
        layout.report,
        layout.report.with_suffix(".md"),
    }
    declared = [Path(out.def_path) for stage in stages.values() for out in stage.outs]
    assert sorted(declared) == sorted(expected)


def test_metrics_are_those_of_all_tasks(stages: dict[str, Any]) -> None:
    metrics = {out.def_path for stage in stages.values() for out in stage.outs if out.metric}
    assert metrics >= {f"results/{task}/metrics.json" for task in PARAMS.evaluation.tasks}
    assert "data/lists/leakage.json" in metrics


def test_every_command_is_the_verb_of_the_stage_and_runs_its_function(stages: dict[str, Any]) -> None:
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    for name, stage in stages.items():
        verb, *arguments = stage.cmd.removeprefix("calm ").split()
        assert stage.cmd.startswith("calm ")
        assert verb == group(name).replace("_", "-")
        assert arguments == ([name.partition("@")[2]] if "@" in name else [])
        assert verb in verbs
    for target in FUNCTIONS.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function)), target


def test_every_key_of_params_is_read_by_a_stage(stages: dict[str, Any]) -> None:
    """A key that no stage reads has no effect: a change of it would run nothing."""
    params = YAML(typ="safe").load((REPOSITORY / "params.yaml").read_text())
    read = {key for stage in stages.values() for dep in stage.deps if hasattr(dep, "params") for key in dep.params}
    for key in read:
        node: Any = params
        for part in key.split("."):
            assert part in node, f"dvc.yaml reads {key}, which params.yaml does not have"
            node = node[part]
    unread = [leaf for leaf in leaves(params) if not covered(leaf, read)]
    # Their stages are there for profiles that have ablations and cross_validations.
    assert unread == ["threads.ablate", "threads.cross_validate"]


def test_the_settings_of_a_task_are_read_by_that_task_and_the_report(stages: dict[str, Any]) -> None:
    read = {name: {k for dep in s.deps if hasattr(dep, "params") for k in dep.params} for name, s in stages.items()}
    for task, settings in PARAMS.evaluation.tasks.items():
        for key in settings:
            readers = {name for name, keys in read.items() if covered(f"evaluation.tasks.{task}.{key}", keys)}
            assert readers == {f"evaluate@{task}", "report"}


def covered(leaf: str, keys: set[str]) -> bool:
    return any(leaf == key or leaf.startswith(f"{key}.") for key in keys)


def leaves(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix(".")


def test_threads_come_from_params(stages: dict[str, Any]) -> None:
    for name, stage in stages.items():
        assert stage.meta["threads"] == getattr(PARAMS.threads, group(name))


def test_a_stage_depends_on_all_code_that_it_imports(stages: dict[str, Any]) -> None:
    """Else an edit would leave its old outputs standing as if they were new."""
    missing: dict[str, list[str]] = {}
    for name, stage in stages.items():
        code = [Path(dep.def_path) for dep in stage.deps if dep.def_path.startswith("calm/")]
        for path in code:
            assert (REPOSITORY / path).exists(), f"{name}: {path}"
        start = FUNCTIONS[group(name)].split(":")[0]
        plugins = {"fetch": "calm.data.sources", "prepare": "calm.data.sources", "evaluate": "calm.evaluation.tasks"}
        chosen = [f"{plugins[group(name)]}.{name.partition('@')[2]}"] if group(name) in plugins else []
        uncovered = sorted(
            module
            for module in closure([start, *chosen])
            if module not in PLUMBING
            and not any(covers(path, module) for path in code)
            and not (group(name) == "fetch" and module.startswith(NOT_FETCHED))
        )
        if uncovered:
            missing[name] = uncovered
    assert missing == {}


def covers(path: Path, module: str) -> bool:
    """True if the file or folder `path` holds the module."""
    found = MODULES.get(module)
    return found is not None and (REPOSITORY / path == found or REPOSITORY / path in found.parents)


def closure(modules: list[str]) -> set[str]:
    """The modules of calm that these import, late imports and imports of imports included.

    Not by way of `calm.params`, which knows every room's settings: a stage names those that it reads under `params`.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = MODULES.get(module)
        if path is None or module in found or module == "calm.params" or says_nothing(path):
            continue
        found.add(module)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        waiting += [package, *IMPORTED(path)]
    return found


@cache
def says_nothing(path: Path) -> bool:
    """A package's file that holds its docstring alone."""
    return len(ast.parse(path.read_text()).body) == 1


def test_cluster_profiles_name_rules_that_exist(stages: dict[str, Any]) -> None:
    profile = YAML(typ="safe").load((REPOSITORY / "workflow/profiles/slurm/config.yaml").read_text())
    assert profile["executor"] == "slurm"
    assert set(profile["set-resources"]) <= set(stages)


def test_an_archive_without_history_is_told_to_dvc_once(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / ".dvc").mkdir()
    subprocess.run(["make", "-s", ".dvc/config.local"], cwd=tmp_path, check=True)
    assert "no_scm = true" in (tmp_path / ".dvc/config.local").read_text()
    (tmp_path / ".dvc/config.local").unlink()
    (tmp_path / ".git").mkdir()
    subprocess.run(["make", "-s", ".dvc/config.local"], cwd=tmp_path, check=True)
    assert not (tmp_path / ".dvc/config.local").exists()
