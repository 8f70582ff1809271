"""`calm profile`: switch params.yaml between demo, oasis, small, paper, ..."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Switch params.yaml between profiles.")

Name = Annotated[str, typer.Argument(help="File name in profiles/, without .yaml.", show_default=False)]


@app.command("list")
def list_profiles() -> None:
    """List the profiles; a star marks the one in params.yaml."""
    from calm.params import load_params
    from calm.profiles import names, summary

    current = load_params().profile
    for name in names():
        typer.echo(f"{'*' if name == current else ' '} {name:<10} {summary(name)}")


@app.command()
def show(name: Name) -> None:
    """Print params.yaml as `use` would write it."""
    from calm.profiles import merged

    typer.echo(merged(name), nl=False)


@app.command()
def use(name: Name) -> None:
    """Merge a profile into params.yaml. Finished stages of other profiles stay in DVC's cache."""
    from calm.pipeline import retiring
    from calm.profiles import use

    with retiring() as (removed, kept):
        lines = use(name)
    typer.echo(f"params.yaml: profile {name}, {lines} lines changed; `dvc repro` runs it")
    if removed:
        typer.echo(f"removed here, kept in DVC's cache: {', '.join(removed)}")
    if kept:
        typer.echo(f"not in DVC's cache, so left where it is: {', '.join(kept)}")


@app.command()
def save(name: Name) -> None:
    """Write the values of params.yaml back into its profile, for the keys that the profile names."""
    from calm.profiles import save

    lines = save(name)
    typer.echo(f"profiles/{name}.yaml: {lines} lines changed")
