"""docs/experiments.md opens with a row for every entry, and no entry is long."""

from __future__ import annotations

import re

from tests.test_structure import REPOSITORY

HEAD, _, BODY = (
    (REPOSITORY / "docs/experiments.md").read_text(encoding="utf-8").partition("<!-- entries start here -->")
)
ENTRIES = re.split(r"(?m)^(?=## )", BODY)[1:]
TITLES = [entry.partition("\n")[0].removeprefix("## ") for entry in ENTRIES]


def anchor(title: str) -> str:
    """What GitHub makes of a heading in an address."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_entry_has_a_row_in_the_same_order() -> None:
    columns, _, *rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in HEAD.splitlines() if line.startswith("|")
    ]
    assert columns == ["question", "verdict", "figure", "date"]
    assert all(len(row) == 4 and all(row) for row in rows)
    assert [row[3] for row in rows] == [f"[{title[:10]}](#{anchor(title)})" for title in TITLES]
    assert sorted(TITLES, key=lambda title: title[:10], reverse=True) == TITLES
    assert len(set(TITLES)) == len(TITLES)


def test_no_entry_is_longer_than_25_lines() -> None:
    lengths = {
        title: sum(bool(line.strip()) for line in entry.splitlines())
        for title, entry in zip(TITLES, ENTRIES, strict=True)
    }
    assert {title: length for title, length in lengths.items() if length > 25} == {}
