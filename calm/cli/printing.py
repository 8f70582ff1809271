"""What commands print: results as JSON, comma-separated values and tables; which exceptions are told as one line."""

from __future__ import annotations

import csv
import errno
import json
import os
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

USER_ERRORS = (ValueError, OSError)
FULL = {errno.ENOSPC, errno.EDQUOT}  # whoever wrote
Row = dict[str, Any]
_UNCUT = 4096  # columns of a table that no terminal shows


class ReportedErrors(TyperGroup):
    """Errors that calm raised on purpose, and a full disk, are one message and exit code 1; others stay tracebacks."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen verb."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `| head` has seen enough: typer ends without a word
            raise
        except USER_ERRORS as error:
            if getattr(error, "errno", None) in FULL:
                tell(f"{error}: what was written last is not whole")
                _drop_output()
            elif raised_by_calm(error):
                tell(str(error))
            else:
                raise
            raise typer.Exit(1) from None


def _drop_output() -> None:
    """Let go of what standard output could not write, or Python tries again at the end and tells of it once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def raised_by_calm(error: BaseException) -> bool:
    """True when the innermost frame is calm's: then the message was written for the user.

    The same classes raised from inside a library (or from a wrong call of it) are bugs.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__", "")).split(".")[0] == "calm"


def tell(message: str) -> None:
    """One message to standard error, marked as an error, never folded: it may hold paths."""
    mark = "\x1b[1;31merror:\x1b[0m" if sys.stderr.isatty() else "error:"
    typer.echo(f"{mark} {message}", err=True)


def print_json(value: object) -> None:
    """Indented, letters of all languages as they are."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_rows(results: Iterable[Row]) -> None:
    """A JSON list, each row as soon as it is there; valid too where a run is stopped on its way."""
    between = ""
    sys.stdout.write("[")
    try:
        for row in results:
            sys.stdout.write(f"{between}\n{textwrap.indent(json.dumps(row, indent=2, ensure_ascii=False), '  ')}")
            between = ","
    finally:
        sys.stdout.write("\n]\n" if between else "]\n")
        sys.stdout.flush()


def print_csv(results: Iterable[Row]) -> None:
    """One line per photograph, or per suggestion where there are several; each as soon as it is there."""
    writer = None
    for line in flat(results):
        if writer is None:
            writer = csv.DictWriter(sys.stdout, list(line), lineterminator="\n")
            writer.writeheader()
        writer.writerow(line)
        sys.stdout.flush()
    if writer is None:
        typer.echo("file")


def print_results(results: Iterable[Row], made_by: dict[str, str]) -> None:
    """A table for people; what is the same for all rows goes below it."""
    from rich.console import Console

    lines = list(flat(results))
    if not lines:
        return
    columns = [key for key in lines[0] if key not in made_by]
    print_table(columns, [[_cell(line.get(key)) for key in columns] for line in lines])
    Console().print(", ".join(f"{key} {value}" for key, value in made_by.items()), style="dim", highlight=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Iterable[str] | None = None) -> None:
    """A table whose cells are text and never markup; `styles` of its rows."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    # Nothing is cut off: on a terminal a long path goes on in the next line, elsewhere lines are as long as they are.
    table = Table(*(Column(name, overflow="fold") for name in columns), row_styles=list(styles or ()))
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else _UNCUT).print(table)


def flat(results: Iterable[Row]) -> Iterator[Row]:
    """A row for each suggestion where a photograph has a list of them."""
    for row in results:
        for suggestion in row.get("suggestions", [{}]):
            rest = {key: value for key, value in row.items() if key not in {"file", "suggestions"}}
            yield {"file": row["file"], **suggestion, **rest}


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
