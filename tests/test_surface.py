"""What others build on stays: verbs and options, Python names, tables, files. A wanted change is written down anew:

python -m tests.test_surface
"""

from __future__ import annotations

import dataclasses
import inspect
from enum import Enum
from inspect import formatannotation
from pathlib import Path
from typing import Any

import pyarrow as pa
from ruamel.yaml import YAML
from typer.main import get_command

from calm import assistant
from calm.cli import app
from calm.data.store import tables as schemas
from calm.layout import Layout, Place, Places

SURFACE = Path(__file__).with_name("surface.yaml")


def verbs(command: Any, name: str = "calm") -> dict[str, Any]:
    """Each command with its arguments and options: their type, and what they are if not given."""
    found: dict[str, Any] = {name: {" ".join(one.opts) or one.name: _option(one) for one in command.params}}
    for verb, below in getattr(command, "commands", {}).items():
        found |= verbs(below, f"{name} {verb}")
    return found


def _option(one: Any) -> str:
    kind, default = one.type_descriptor.annotation, getattr(one.default, "value", one.default)
    is_choice = inspect.isclass(kind) and issubclass(kind, Enum)
    return f"{'|'.join(kind) if is_choice else formatannotation(kind)}, {'required' if one.required else default}"


def python_names() -> dict[str, Any]:
    """Public classes of `calm.assistant` with the signatures of their methods, or the types of their fields."""
    found: dict[str, Any] = {}
    for name in assistant.__all__:
        kind = getattr(assistant, name)
        if dataclasses.is_dataclass(kind):
            found[name] = {field.name: str(field.type) for field in dataclasses.fields(kind)}
        else:
            methods = inspect.getmembers(kind, lambda member: inspect.isfunction(member) or inspect.ismethod(member))
            found[name] = {key: str(inspect.signature(value)) for key, value in methods if not key.startswith("_")}
    return found


def tables() -> dict[str, Any]:
    """Columns of every table that stages hand to one another."""
    return {
        name: {column.name: f"{column.type}{'' if column.nullable else ', never null'}" for column in table}
        for name, table in vars(schemas).items()
        if isinstance(table, pa.Schema)
    }


def files() -> dict[str, str]:
    """Where artifacts lie."""
    layout, found = Layout(), {}
    for name, member in vars(Layout).items():
        if isinstance(member, Place):
            found[name] = getattr(layout, name).as_posix()
        elif isinstance(member, Places):
            found[name] = getattr(layout, name)("NAME").as_posix()
    return found


def surface() -> dict[str, Any]:
    return {"verbs": verbs(get_command(app)), "python": python_names(), "tables": tables(), "files": files()}


def test_verbs_names_tables_and_files_are_those_written_down() -> None:
    assert surface() == YAML(typ="safe").load(SURFACE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    writer = YAML()
    writer.width = 1000
    writer.dump(surface(), SURFACE)
