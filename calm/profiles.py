"""Profiles: overlays that `calm profile use` merges into params.yaml.

The merge replaces text, not a parsed tree: every comment, blank line and number format that a profile does not name
stays byte for byte. profiles/demo.yaml names every key that any other profile changes, and every profile starts from
it, so params.yaml is a function of the profile alone (and of what was edited by hand outside of these keys).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from calm.params import PARAMS_FILE, Params, load_params, parse_params
from calm.settings import ParamsError

FOLDER = Path("profiles")
BASE = "demo"
EXTENDS = "extends"  # the one key of a profile that is not a param: the profile it starts from
# Sections that a profile replaces as a unit, comments included: their keys are free names, or those of one variant.
WHOLE = frozenset(
    {
        "data.datasets",
        "attributes.texts.writer",
        "pretrain.attributes.losses",
        "finetune.tuning",
        "ablations",
        "cross_validations",
    }
)


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
        patch = _read(part, folder)
        if unknown := places(patch).keys() - places(text).keys() - {EXTENDS}:
            raise ParamsError(f"{folder / part}.yaml: {min(unknown)} is not a key of params.yaml")
        text = overlay(text, patch)
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
    return _replace(folder / f"{name}.yaml", overlay(profile, text))


def check_open_sections(params: Params) -> None:
    """Check the settings of every dataset, task and further loss that has a file.

    One without a file may be of a later version; the stage that needs it says so.

    Raises:
        ParamsError: names every offending key by its dotted path.
        EvaluationError: evaluation.tasks names a file that is no task.
    """
    from calm.data import sources
    from calm.evaluation import stage as evaluation  # every dataset's and task's module: seconds

    problems = []
    for named, known, check in (
        (params.data.datasets, sources.names(), sources.source),
        (params.evaluation.tasks, evaluation.names(), evaluation.settings),
    ):
        for name in sorted(set(named) & set(known)):
            try:
                check(name, params)
            except ParamsError as error:
                problems.append(str(error))
    for name, raw in params.pretrain.attributes.losses.items():
        from calm.training.losses import further_loss  # with torch, which takes seconds

        try:
            further_loss(name, raw)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ParamsError("\n".join(problems))


def _replace(path: Path, after: str) -> int:
    """Write a file as a whole if it changes; the number of lines that are new."""
    import difflib

    from calm.io import atomic_file

    before = path.read_text(encoding="utf-8")
    if after != before:
        with atomic_file(path) as part:
            part.write_text(after, encoding="utf-8")
    return sum(line.startswith("+ ") for line in difflib.ndiff(before.splitlines(), after.splitlines()))


def overlay(text: str, patch: str) -> str:
    """YAML `text` with the values of `patch` for all keys that both have."""
    old, new = places(text), places(patch)
    for key in sorted(old.keys() & new.keys(), key=lambda key: old[key].start, reverse=True):
        text = text[: old[key].start] + patch[new[key]] + text[old[key].stop :]
    return text


def places(text: str) -> dict[str, slice]:
    """Where values stand in a YAML text, by dotted key.

    A leaf's place is that of its value alone, so the comment behind it stays. One of `WHOLE` is a place from its key to
    the end of its last line.
    """
    found: dict[str, slice] = {}

    def visit(node: MappingNode, prefix: str) -> None:
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if name in WHOLE:
                line_end = text.find("\n", _end(value))
                found[name] = slice(key.start_mark.index, len(text) if line_end < 0 else line_end)
            elif isinstance(value, MappingNode):
                visit(value, f"{name}.")
            else:
                found[name] = slice(value.start_mark.index, _end(value))

    visit(YAML().compose(text), "")
    return found


def _end(node: Node) -> int:
    """Where the last character of a value is; the parser's end of a block lies behind the comments that follow."""
    if isinstance(node, CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


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
