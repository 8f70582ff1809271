"""README.md keeps what it promises, as far as a page can be held to it; so do the other pages' links and names."""

from __future__ import annotations

import ast
import csv
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from calm import __version__
from calm.io import write_json
from calm.layout import Layout
from calm.params import load_params
from calm.report.pages import SHOWN, results_table, with_results
from calm.report.tables import sections

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), REPOSITORY / "data/README.md"])
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def stages() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return found


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9}


METRICS: dict[str, dict[str, Any]] = {
    "scoring": {
        "labels": "synthetic",
        **{readout: {"srcc": figure(0.5), "plcc": figure(0.4)} for readout in ("expectation", "text")},
        "regression": {"srcc": {"value": None, "n": 9, "reason": "all equal | constant"}},
    },
    "attributes": {
        "labels": "exact: seeded edits",
        **{level: {"balanced_accuracy": figure(0.7), "chance": 0.4} for level in ("low", "middle", "high")},
    },
}


def test_the_results_table_has_exactly_the_first_headlines_of_each_task(tmp_path: Path) -> None:
    params = load_params(REPOSITORY / "params.yaml")
    tasks = {name: params.evaluation.tasks[name] for name in METRICS}
    params = params.model_copy(update={"evaluation": params.evaluation.model_copy(update={"tasks": tasks})})
    layout = Layout(tmp_path)
    for name, metrics in METRICS.items():
        write_json(layout.result(name) / "metrics.json", metrics)
    lines = results_table(sections(params, layout), params).splitlines()
    assert lines[0].startswith(f"Profile `{params.profile}`, seed {params.seed}")
    assert lines[2:] == [
        "| task | figure | value | 95 % interval | beside it | labels |",
        "| --- | --- | --- | --- | --- | --- |",
        "| Aesthetic scoring | SRCC, expectation | 0.500 | 0.400 to 0.600 |  | synthetic |",
        "| Aesthetic scoring | SRCC, regression | not available | all equal \\| constant |  | synthetic |",
        "| Aesthetic scoring | SRCC, text | 0.500 | 0.400 to 0.600 |  | synthetic |",
        *(
            f"| Attribute recognition | balanced accuracy, {level} level | 0.700 | 0.600 to 0.800 "
            "| chance 0.400 | exact |"
            for level in ("low", "middle", "high")
        ),
    ]


def test_the_table_is_written_between_its_markers_and_nowhere_else() -> None:
    written = with_results(TEXT, "| new |\n")
    assert "<!-- results -->\n| new |\n<!-- /results -->" in written
    assert with_results(written, "| newer |\n") == with_results(TEXT, "| newer |\n")
    assert re.sub(r"(?s)<!-- results -->.*<!-- /results -->", "", written) == re.sub(
        r"(?s)<!-- results -->.*<!-- /results -->", "", TEXT
    )
    with pytest.raises(ValueError, match="no lines <!-- results -->"):
        with_results("no markers", "")


def test_the_table_is_that_of_the_committed_run() -> None:
    """Other machines compute other bits, so only results that the committed dvc.lock vouches for are compared."""
    params, layout = load_params(REPOSITORY / "params.yaml"), Layout(REPOSITORY)
    committed = subprocess.run(
        ["git", "show", "HEAD:dvc.lock"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    lock = REPOSITORY / "dvc.lock"
    if committed.returncode or not lock.is_file() or lock.read_text(encoding="utf-8") != committed.stdout:
        pytest.skip("dvc.lock is not the committed one: results/ are of another run than the README's")
    if not all((layout.result(name) / "metrics.json").is_file() for name in params.evaluation.tasks):
        pytest.skip("the committed run's results are not here: `dvc pull` or `dvc repro`")
    assert with_results(TEXT, results_table(sections(params, layout), params)) == TEXT, "run `make results`"


def test_a_table_in_the_readme_has_the_rows_of_the_tasks() -> None:
    block = re.search(r"<!-- results -->\n(.*?)<!-- /results -->", TEXT, re.DOTALL)
    assert block is not None
    if "No results yet" in block[1]:
        pytest.skip("no results are written into the README yet: `make results`")
    from calm.evaluation.stage import find_task

    expected = [
        (find_task(name).title, headline.label)
        for name in load_params(REPOSITORY / "params.yaml").evaluation.tasks
        for headline in find_task(name).headlines[:SHOWN]
    ]
    rows = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in block[1].splitlines() if "|" in line]
    assert rows[2:] == expected


def test_the_page_is_short() -> None:
    written = with_results(TEXT, "\n" * (5 + SHOWN * len(load_params(REPOSITORY / "params.yaml").evaluation.tasks)))
    assert len(written.splitlines()) < 200


def test_the_first_screen_shows_what_a_photographer_does_a_command_each() -> None:
    verbs = {line.split()[1] for line in TEXT.splitlines()[:30] if line.startswith("calm ")}
    assert verbs >= {"score", "comment", "suggest", "personalise"}


def test_the_tree_shows_what_exists_and_every_room_of_the_package() -> None:
    folder = ""
    rooms = set()
    for line in blocks("text")[0].splitlines():
        for name in line[:23].strip().split(", "):
            if not line.startswith("  "):
                folder = ""
            assert (REPOSITORY / folder / name).exists(), line
            if folder == "calm/":
                rooms.add(name)
            elif name == "calm/":
                folder = name
    assert {f"{path.parent.name}/" for path in REPOSITORY.glob("calm/*/__init__.py")} <= rooms


def test_the_graph_is_dvcs() -> None:
    import networkx as nx
    from dvc.repo import Repo

    from calm.pipeline import resolve

    drawn, real = nx.DiGraph(), nx.DiGraph()
    for line in blocks("mermaid")[0].splitlines()[1:]:
        nx.add_path(drawn, line.strip().split(" --> "))
    with Repo(str(REPOSITORY)) as repo:
        for row in resolve(repo, REPOSITORY):
            real.add_node(row.group)
            real.add_edges_from((name.partition("@")[0], row.group) for name in row.upstream)
    real.remove_edges_from(list(nx.selfloop_edges(real)))
    # A stage that dvc.yaml repeats for each entry of an empty section is not there.
    assert set(real) == set(stages()) - {"ablate", "cross_validate"}
    assert set(nx.transitive_reduction(real).edges) <= set(drawn.edges) <= set(real.edges)


def test_every_command_exists() -> None:
    from typer.main import get_command

    from calm.cli import app

    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    make = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    code = [re.sub(r"#.*", "", line) for text in blocks("sh") for line in text.splitlines()]
    everything = "\n".join(code + re.findall(r"`([^`\n]+)`", TEXT))
    used = set(re.findall(r"\bcalm (?!&)([a-z][a-z-]+)", everything))
    assert {"score", "comment", "suggest", "profile"} <= used <= verbs
    targets = set(re.findall(r"\bmake ([a-z]+)", everything))
    assert {"repro", "results", "test"} <= targets <= make
    for option in re.findall(r"calm (score|comment|suggest) [^\n]*?(--[a-z]+)", everything):
        assert option[1] in str([parameter.opts for parameter in get_command(app).commands[option[0]].params])  # type: ignore[attr-defined]


def test_the_python_examples_name_what_exists() -> None:
    from calm.assistant import Calm, Score, Suggestion

    own = ast.parse(blocks("python")[0])
    called = {
        node.func.attr
        for node in ast.walk(own)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) in {"calm", "Calm"}
    }
    assert called == {"from_pretrained", "score", "comment", "suggest", "attributes", "attention"}
    assert called <= set(dir(Calm))
    shown = re.findall(r"(Score|Suggestion)\(([^)]*)\)", blocks("python")[0])
    fields = {"Score": Score.__dataclass_fields__, "Suggestion": Suggestion.__dataclass_fields__}
    for name, arguments in shown:
        assert re.findall(r"(\w+)=", arguments) == list(fields[name])


def test_profiles_and_numbers_are_the_repositorys() -> None:
    named = set(re.findall(r"`([\w-]+)`", "\n".join(re.findall(r"^\| (`[^|]*`) \|", TEXT, re.MULTILINE))))
    assert {path.stem for path in (REPOSITORY / "profiles").glob("*.yaml")} <= named
    with (REPOSITORY / "calm/data/sources/photos/photos.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert f"{len(rows)}, in {len({row['group'] for row in rows})} groups" in TEXT


def test_every_set_that_the_paper_profiles_name_can_be_read() -> None:
    from ruamel.yaml import YAML

    from calm.data.sources import names
    from calm.profiles import merged

    assert "reads every set that the paper names" in " ".join(TEXT.split())
    for profile in ("small", "paper", "paper-e"):
        assert set(YAML(typ="safe").load(merged(profile))["data"]["datasets"]) <= set(names())


def test_version_and_licence_are_the_same_everywhere() -> None:
    citation = YAML(typ="safe").load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## ([\d.]+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert citation["version"] == newest[1] == __version__
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["license"] == project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_files_named_in_pages_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    examples = ("exposures.py", "diary/__init__.py", "mirrored.py", "distinct.py")  # of docs/extending.md
    for name in re.findall(r"`((?:calm|tests|docs|workflow|profiles|requirements)/[\w./-]+\.\w+)`", text):
        if not name.endswith(examples):
            assert (REPOSITORY / name).is_file(), f"{page.name}: {name}"
