"""`calm datasets`: what can be read, what is here, how to get the rest, and whether it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from calm.cli.printing import print_json, print_table

if TYPE_CHECKING:
    from calm.data.inventory import Check, Count

app = typer.Typer(invoke_without_command=True, help="Datasets: what is here, what is missing, how to get it.")

KEYS = ("name", "state", "used", "size", "licence", "note")
STYLES = {"present": "green", "partial": "yellow", "missing": "dim"}
Name = Annotated[str, typer.Argument(help="As `calm datasets` lists it.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


@app.callback()
def datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List every dataset with state, size and licence; a star marks those named in params.yaml."""
    if context.invoked_subcommand is not None:
        return
    from calm.data.inventory import entries
    from calm.params import load_params

    listed = entries(load_params())
    if as_json:
        values = [(e.name, e.state, e.used, e.card.size, e.card.licence, e.note) for e in listed]
        print_json([dict(zip(KEYS, row, strict=True)) for row in values])
        return
    rows = [("*" if e.used else "", e.name, e.state, e.card.size, e.card.licence) for e in listed]
    print_table(("", "dataset", "state", "size", "licence"), rows, [STYLES[entry.state] for entry in listed])
    for entry in listed:
        if entry.state == "partial":
            typer.echo(f"{entry.name}: {entry.note}")
    typer.echo("`calm datasets show NAME` says how to get one; `calm datasets check NAME` counts it.")


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

    Exit code 1 if a count differs and calm has no explanation.
    """
    from calm.data import inventory
    from calm.params import load_params

    checked = inventory.check(inventory.open_source(name, load_params(), root))
    if as_json:
        print_json(checked.to_json())
    else:
        rows = [(one.key, _number(one.found), _number(one.published), _difference(one)) for one in checked.counts]
        print_table(("count", "found", "published", "difference"), rows)
        if checked.absent:
            named = ", ".join(checked.absent[:5])
            typer.echo(f"{len(checked.absent):,} photographs that labels name are not there: {named} ...")
        typer.echo(f"{name}: {_verdict(checked)}")
    if not checked.passed:
        raise typer.Exit(1)


def _difference(count: Count) -> str:
    """How far a count is off, and why."""
    if not count.differs:
        return ""
    known = count.found is not None and count.published is not None
    gap = f"{count.found - count.published:+,}" if known else "not counted"  # type: ignore[operator]
    return f"{gap}: {count.explanation or 'unexplained'}"


def _verdict(checked: Check) -> str:
    """The check in a few words."""
    if not checked.passed and checked.absent:
        here = checked.photographs
        return (
            f"{here or 'none'} of {here + len(checked.absent):,} photographs that its labels name are here: put the "
            f"others into its folder; `calm datasets show {checked.name}` says how to get them"
        )
    if not checked.passed:
        named = ", ".join(one.key for one in checked.counts if one.unexplained)
        return f"these counts are not the published ones: {named}; files are missing, or this is another version"
    if all(one.published is None for one in checked.counts):
        return "nobody published counts to hold these against"
    return "as published, but for differences that are explained" if checked.differences else "as published"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
