"""Profiles: overlays that `calm profile use` merges into params.yaml.

The merge replaces text, not a parsed tree: every comment, blank line and number format that a profile does not name
stays byte for byte. profiles/demo.yaml names every key that any other profile changes, and every profile starts from
it, so params.yaml is a function of the profile alone (and of what was edited by hand outside of these keys).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from calm.params import PARAMS_FILE, Params, load_params, parse_params
from calm.sections import check_open_sections
from calm.settings import ParamsError

FOLDER = Path("profiles")
BASE = "demo"
EXTENDS = "extends"  # the one key of a profile that is not a param: the profile it starts from


@dataclass(frozen=True)
class Entry:
    """One key of a YAML text: where it is, with its value and the comment behind it."""

    key: str  # dotted
    start: int  # of the key
    end: int  # of the last line of the value, line break not included
    value: tuple[int, int] | None  # the value alone; None when a whole section is the unit


def names(folder: Path = FOLDER) -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def summary(name: str, folder: Path = FOLDER) -> str:
    """First line of a profile's file."""
    return _read(name, folder).splitlines()[0].removeprefix("#").strip()


def chain(name: str, folder: Path = FOLDER) -> list[str]:
    """The profiles whose overlays make up `name`, the base first.

    Raises:
        ParamsError: one of them does not exist, or they extend one another in a circle.
    """
    found = [name]
    while found[-1] != BASE:
        parent = _parse(_read(found[-1], folder), found[-1]).get(EXTENDS, BASE)
        if parent in found:
            raise ParamsError(f"profile {name}: {' extends '.join([*found, parent])}: a circle")
        found.append(parent)
    return found[::-1]


def merged(name: str, params: Path = PARAMS_FILE, folder: Path = FOLDER) -> str:
    """Text of `params` with profile `name` applied, checked.

    Raises:
        ParamsError: no such profile, a key that params.yaml does not have, or values that `Params`, a dataset or a
            task refuses.
    """
    text = params.read_text(encoding="utf-8")
    for part in chain(name, folder):
        text = overlay(text, _read(part, folder), f"{folder / part}.yaml")
    checked = parse_params(_parse(text, params.name), f"{params.name} with profile {name}")
    check_open_sections(checked)
    if checked.profile != name:
        raise ParamsError(f"profiles/{name}.yaml: profile: must be {name}, got {checked.profile}")
    return text


def use(name: str, params: Path = PARAMS_FILE, folder: Path = FOLDER) -> int:
    """Merge a profile into `params`, which is replaced as a whole or not at all.

    Returns:
        The number of lines that differ.

    Raises:
        ParamsError: as `merged`.
    """
    return _replace(params, merged(name, params, folder))


def save(name: str, params: Path = PARAMS_FILE, folder: Path = FOLDER) -> int:
    """The other way round: give the keys that a profile names the values they have in `params`.

    Returns:
        The number of lines that differ.

    Raises:
        ParamsError: no such profile, or `params` is of another one or not valid.
    """
    profile, text = _read(name, folder), params.read_text(encoding="utf-8")
    current = load_params(params)
    check_open_sections(current)
    if current.profile != name:
        raise ParamsError(f"{params.name} is of profile {current.profile}: its values are not those of {name}")
    named = frozenset(entry.key for entry in entries(profile))
    return _replace(folder / f"{name}.yaml", overlay(profile, text, params.name, only=named))


def _replace(path: Path, after: str) -> int:
    """Write a file as a whole if it changes; the number of lines that are new."""
    import difflib

    from calm.io import atomic_file

    before = path.read_text(encoding="utf-8")
    if after != before:
        with atomic_file(path) as part:
            part.write_text(after, encoding="utf-8")
    return sum(line.startswith("+ ") for line in difflib.ndiff(before.splitlines(), after.splitlines()))


def overlay(text: str, patch: str, where: str, only: frozenset[str] | None = None) -> str:
    """Replace in YAML `text` every value that `patch` names (of the keys `only`); `where` names the patch in errors.

    Leaves keep the comment behind them. Sections whose keys are free or depend on one another (`whole_sections`)
    are replaced as a unit, comments included.
    """
    there = {entry.key: entry for entry in entries(text)}
    edits: list[tuple[int, int, str]] = []
    for entry in entries(patch):
        if entry.key == EXTENDS or (only is not None and entry.key not in only):
            continue
        if entry.key not in there:
            raise ParamsError(f"{where}: {entry.key} is not a key of params.yaml")
        target = there[entry.key]
        if entry.value and target.value:
            edits.append((*target.value, patch[slice(*entry.value)]))
        else:
            edits.append((target.start, target.end, patch[entry.start : entry.end]))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def entries(text: str) -> Iterator[Entry]:
    """Leaves and whole sections of a YAML mapping, in order."""
    root = YAML().compose(text)
    assert isinstance(root, MappingNode)
    yield from _entries(text, root, "", whole_sections())


def _entries(text: str, node: MappingNode, prefix: str, whole: frozenset[str]) -> Iterator[Entry]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if isinstance(value, MappingNode) and name not in whole:
            yield from _entries(text, value, f"{name}.", whole)
            continue
        last = _last(value)
        line_end = text.find("\n", last)
        yield Entry(
            key=name,
            start=key.start_mark.index,
            end=len(text) if line_end < 0 else line_end,
            value=None if name in whole else (value.start_mark.index, last),
        )


def _last(node: Node) -> int:
    """Where the last character of a value is; the parser's end of a block lies behind the comments that follow."""
    if isinstance(node, CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _last(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def whole_sections() -> frozenset[str]:
    """Dotted keys of `Params` that hold free names or one of several variants."""
    return frozenset(_whole(Params, ""))


def _whole(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if typing.get_origin(kind) is Annotated:
            kind = typing.get_args(kind)[0]
        if typing.get_origin(kind) in (dict, typing.Union, types.UnionType):
            yield prefix + name
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _whole(kind, f"{prefix}{name}.")


def _read(name: str, folder: Path) -> str:
    try:
        return (folder / f"{name}.yaml").read_text(encoding="utf-8")
    except FileNotFoundError:
        there = ", ".join(names(folder)) or "none"
        raise ParamsError(f"there is no profile '{name}' in {folder}; there are: {there}") from None


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        parsed = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ParamsError(f"{where} is not valid YAML: {error}") from None
    if not isinstance(parsed, dict):
        raise ParamsError(f"{where}: expected a mapping of sections")
    return parsed
