"""The results table of README.md, written from results/ by `make results`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from calm.io import atomic_file
from calm.layout import Layout
from calm.params import Params, load_params
from calm.report.stage import table_cell
from calm.report.tables import SHOWN, Section, sections

README = Path("README.md")
_BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)
_COLUMNS = ("task", "figure", "value", "{level} interval", "beside it", "labels")


def results_table(found: Sequence[Section], params: Params) -> str:
    """A Markdown table of the first figures of every task, and the profile and seed that they are of."""
    level = f"{100 * params.evaluation.bootstrap.level:g} %"
    rows = [
        (section.task.title, row.label, row.value, row.interval or row.note, row.beside, section.labels.split(":")[0])
        for section in found
        for row in section.rows[:SHOWN]
    ]
    head = [tuple(column.format(level=level) for column in _COLUMNS), ("---",) * len(_COLUMNS)]
    lines = ["| " + " | ".join(map(table_cell, row)) + " |" for row in [*head, *rows]]
    return "\n".join(
        [f"Profile `{params.profile}`, seed {params.seed}, photographs held out of training:", "", *lines, ""]
    )


def with_results(text: str, table: str) -> str:
    """The README's text with the table between its markers.

    Raises:
        ValueError: the markers are missing.
    """
    if not _BLOCK.search(text):
        raise ValueError(f"{README} has no lines <!-- results --> and <!-- /results --> to write between")
    return _BLOCK.sub(lambda block: f"{block[1]}{table}{block[2]}", text)


def main() -> None:
    """Renew the table in the README of the working directory."""
    params = load_params()
    text = README.read_text(encoding="utf-8")
    renewed = with_results(text, results_table(sections(params, Layout()), params))
    with atomic_file(README) as part:
        part.write_text(renewed, encoding="utf-8")


if __name__ == "__main__":
    main()
