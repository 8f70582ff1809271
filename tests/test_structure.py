"""The shape of the house: imports without circles, small floors, small files."""

from __future__ import annotations

import ast

import networkx as nx

from tests.imports import MODULES, REPOSITORY, imported


def test_no_import_goes_in_a_circle() -> None:
    graph = nx.DiGraph((module, other) for module, path in MODULES.items() for other in imported(path))
    circles = [sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1]
    assert circles == []


def test_a_floor_has_at_most_15_files_beside_its_datasets() -> None:
    folders = {path.parent for path in MODULES.values()} - {REPOSITORY / "calm/data/sources"}
    crowded = {str(f.relative_to(REPOSITORY)): len(list(f.glob("*.py"))) for f in folders}
    assert {name: count for name, count in crowded.items() if count > 15} == {}


def test_no_file_is_longer_than_350_lines_and_no_function_than_50() -> None:
    long = {str(path): n for path in MODULES.values() if (n := len(path.read_text().splitlines())) > 350}
    assert long == {}
    functions = {
        f"{module}.{node.name}": node.end_lineno - node.lineno + 1
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
    }
    assert {name: lines for name, lines in functions.items() if lines > 50} == {}


def test_what_is_written_in_one_place_stays_short() -> None:
    for name, most in {"dvc.yaml": 260, "calm/params.py": 150, "README.md": 200}.items():
        assert len((REPOSITORY / name).read_text().splitlines()) <= most, name
