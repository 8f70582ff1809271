"""`calm datasets`: what can be read, what is here, how to get the rest, and whether it is whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from calm.data.inventory import Check, Entry

app = typer.Typer(invoke_without_command=True, help="Datasets: what is here, what is missing, how to get it.")

Name = Annotated[str, typer.Argument(help="As `calm datasets` lists it.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


@app.callback()
def datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List every dataset with state, size and licence; a star marks those of params.yaml."""
    if context.invoked_subcommand is not None:
        return
    from calm.data.inventory import entries
    from calm.params import load_params

    found = entries(load_params())
    if as_json:
        rows = [
            {
                "name": one.name,
                "state": one.state,
                "used": one.used,
                "size": one.card.size,
                "licence": one.card.licence,
                "note": one.note,
            }
            for one in found
        ]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _print_entries(found)


@app.command()
def show(name: Name) -> None:
    """What a dataset is, its terms, and how to get it."""
    from calm.data.inventory import how_to_get, open_source, state_of
    from calm.params import load_params

    source = open_source(name, load_params())
    card = source.card
    typer.echo(card.title)
    for key in ("task", "size", "licence", "terms", "citation", "home"):
        typer.echo(f"  {key:<9} {getattr(card, key)}")
    typer.echo("  {:<9} {}".format("state", " ".join(filter(None, state_of(source)))))
    for step in how_to_get(source):
        typer.echo(f"  - {step}")
    if card.acceptance:
        typer.echo(f'  To accept the terms: data.datasets.{name}.accept: "{card.acceptance}" in params.yaml')


@app.command()
def check(
    name: Name,
    root: Annotated[str | None, typer.Option(help="The dataset's folder, instead of the one in params.yaml.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count photographs, splits, ratings, raters and comments, against the published counts.

    Exit code 1 if a count differs and nobody knows why.
    """
    from calm.data import inventory
    from calm.params import load_params

    found = inventory.check(inventory.open_source(name, load_params(), root))
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        _print_check(found)
    if not found.passed:
        raise typer.Exit(1)


def _print_entries(found: list[Entry]) -> None:
    from rich.console import Console
    from rich.table import Table

    colours = {"present": "green", "partial": "yellow", "missing": "dim"}
    table = Table("", "dataset", "state", "size", "licence")
    for one in found:
        cells = ["*" if one.used else "", one.name, one.state, one.card.size, one.card.licence]
        table.add_row(*(_plain(cell) for cell in cells), style=colours[one.state])
    Console().print(table)
    for one in found:
        if one.state == "partial":
            typer.echo(f"{one.name}: {one.note}")
    typer.echo("`calm datasets show NAME` says how to get one; `calm datasets check NAME` counts it.")


def _print_check(found: Check) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("count", "found", "published", "difference")
    for one in found.counts:
        difference = ""
        if one.differs:
            gap = f"{one.found - one.published:+,}" if None not in (one.found, one.published) else "not counted"  # type: ignore[operator]
            difference = f"{gap}: {one.explanation or 'unexplained'}"
        table.add_row(one.key, _number(one.found), _number(one.published), _plain(difference))
    Console().print(table)
    if found.absent:
        named = ", ".join(found.absent[:5])
        typer.echo(f"{len(found.absent):,} photographs that labels name are not there: {named} ...")
    typer.echo(f"{found.name}: {_verdict(found)}")


def _verdict(found: Check) -> str:
    """The check in a few words."""
    if not found.passed:
        return "counts differ, and nobody knows why"
    if all(one.published is None for one in found.counts):
        return "nobody published counts to hold these against"
    return "as published, but for differences that are explained" if found.differences else "as published"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _plain(text: str) -> Text:
    """Text that rich does not read marks in."""
    from rich.text import Text

    return Text(text)
