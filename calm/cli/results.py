"""`calm metrics`: the figures of all tasks as one table (`dvc metrics show` prints every number there is)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from calm.report.tables import Section


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel="Results")(metrics)


def metrics() -> None:
    """What every task measured, with intervals and what chance or a baseline reaches."""
    from rich.console import Console

    from calm.layout import Layout
    from calm.params import load_params
    from calm.report.tables import sections

    Console().print(table(sections(load_params(), Layout())))


def table(sections: list[Section]) -> Table:
    """One row per headline figure; a rule between tasks."""
    from rich.table import Table

    found = Table("task", "figure", "value", "interval", "beside it", "labels")
    for section in sections:
        for number, row in enumerate(section.rows):
            task, labels = (section.name, section.labels) if number == 0 else ("", "")
            found.add_row(task, row.label, row.value, row.interval, row.beside or row.note, labels)
        found.add_section()
    return found
