"""docs/architecture.md shows what exists, and imports go down as drawn."""

from __future__ import annotations

import re

from tests.test_structure import MODULES, REPOSITORY, imported

TEXT = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
PICTURE = re.search(r"```text\n(.*?)```", TEXT, re.DOTALL)
assert PICTURE is not None
ROOMS = {  # with the line of the picture that names them, before what it says of them
    room: number for number, line in enumerate(PICTURE[1].splitlines()) for room in re.split(r" {3,}", line)[0].split()
}


def room(module: str) -> str | None:
    """The room of the picture that holds a module: the longest path that it shows."""
    parts = module.split(".")[1:]
    paths = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((path for path in paths if path in ROOMS), None)


def test_every_path_exists() -> None:
    paths = [*re.findall(r"`(calm/[^`]*)`", TEXT), *(f"calm/{room}" for room in ROOMS)]
    paths = [path if (REPOSITORY / path).exists() else f"{path}.py" for path in paths]
    assert len(paths) > 40
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []


def test_every_module_is_in_a_room() -> None:
    beside = {"calm"}  # what `import calm` runs, for transformers' sake
    assert [module for module in MODULES if module not in beside and room(module) is None] == []


def test_imports_go_down() -> None:
    """Rooms' settings apart, which params.py puts together: they lie beside it."""
    upward = []
    for module, path in MODULES.items():
        ours = room(module)
        for other in imported(path):
            theirs = room(other)
            if ours is None or theirs is None or ours == theirs or other.endswith(".settings"):
                continue
            if ROOMS[theirs] <= ROOMS[ours]:
                upward.append(f"{module} -> {other}")
    assert upward == []


def test_it_is_read_in_one_sitting() -> None:
    assert len(TEXT.splitlines()) <= 80
    assert "docs/architecture.md" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
