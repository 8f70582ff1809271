"""docs/experiments.md opens with a row for every entry, and no entry is long."""

from __future__ import annotations

import re

from tests.test_structure import REPOSITORY

HEAD, _, BODY = (
    (REPOSITORY / "docs/experiments.md").read_text(encoding="utf-8").partition("<!-- entries start here -->")
)
ENTRIES = re.split(r"(?m)^(?=## )", BODY)[1:]


def test_every_entry_has_a_row_in_the_same_order() -> None:
    rows = re.findall(r"(?m)^\| (\d{4}-\d\d-\d\d) \|", HEAD)
    assert rows == [entry.removeprefix("## ")[:10] for entry in ENTRIES]


def test_no_entry_is_longer_than_25_lines() -> None:
    long = {
        entry.split("\n")[0]: n
        for entry in ENTRIES
        if (n := sum(bool(line.strip()) for line in entry.split("\n"))) > 25
    }
    assert long == {}
