"""`calm metrics`: the figures of all tasks as one table (`dvc metrics show` prints every number there is).

`calm fetch-spice` brings what one of these figures needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from calm.report.tables import Section


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel="Results")(metrics)
    app.command("fetch-spice", rich_help_panel="Results")(fetch_spice)


def metrics() -> None:
    """What every task measured, with intervals and what chance or a baseline reaches."""
    from rich.console import Console

    from calm.layout import Layout
    from calm.params import load_params
    from calm.report.tables import sections

    Console().print(table(sections(load_params(), Layout())))


def fetch_spice(
    folder: Annotated[Path, typer.Argument(help="Where to put the parser's jars, some 400 MB.", show_default=False)],
) -> None:
    """Fetch and check what the caption metric SPICE needs beyond Python packages."""
    from calm.evaluation.spice import FOLDER_VARIABLE, fetch

    for name, value in fetch(folder).items():
        typer.echo(f"{value}  {name}")
    typer.echo(f"To use it: export {FOLDER_VARIABLE}={folder.resolve()}")


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
