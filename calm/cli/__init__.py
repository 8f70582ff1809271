"""The command line: one verb per stage, verbs for people, and profiles.

Nothing here imports numpy, torch or a stage's module before the verb that needs it runs: `calm --help` stays
instant, and the thread settings of a stage are in place before any library reads them.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from calm import __version__
from calm.cli import datasets, people, results, serve, stages
from calm.cli.printing import ReportedErrors

app = typer.Typer(
    cls=ReportedErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a bug keeps Python's own traceback
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (people, serve, results, stages):
    app.add_typer(part.app)
app.add_typer(datasets.app, name="datasets")
app.add_typer(stages.profiles, name="profile")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"calm {__version__}")
        raise typer.Exit


@app.callback()
def calm(
    context: typer.Context,
    directory: Annotated[
        Path | None, typer.Option("-C", "--directory", help="Run as if started in this checkout.")
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Scores, comments and suggestions for photographs, and the pipeline that trains them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # files may have names that are no UTF-8: say them, lose no row
            stream.reconfigure(errors="backslashreplace")
    atexit.register(gc.freeze)  # or a process that has imported torch searches a second for garbage before it ends
    context.obj = Path.cwd()  # where names that a person types are told from
    if directory is not None:
        if not directory.is_dir():
            raise typer.BadParameter(f"{directory} is not a folder", param_hint="--directory")
        os.chdir(directory)
