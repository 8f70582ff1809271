"""docs/decisions.md has a reason for every dependency."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_every_dependency_has_its_line_and_no_line_is_left_over() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [re.split(r"[<>=!~; \[]", dependency)[0] for dependency in project["dependencies"]]
    page = (REPOSITORY / "docs/decisions.md").read_text(encoding="utf-8").split("## Dependencies")[1]
    rows = dict(re.findall(r"^\| ([\w.-]+) \| (.+) \|$", page, re.MULTILINE))
    del rows["package"], rows["---"]
    assert list(rows) == wanted
    assert all(rows.values())
