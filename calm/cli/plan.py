"""`calm plan`: parameters, FLOPs, memory, hours and price of a profile, before a GPU is rented."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from calm.cli.errors import tell
from calm.cli.stages import quiet_libraries

if TYPE_CHECKING:
    from calm.params import Params

app = typer.Typer()


@app.command(rich_help_panel="Results")
def plan(
    profile: Annotated[
        str | None, typer.Argument(help="File name in profiles/, without .yaml; default: params.yaml as it is.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: FLOPs, bytes, hours, dollars.")] = False,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs of all nodes; default: as strategy says.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Kind of GPU, from calm/training/loop/machines.yaml.")] = None,
    mfu: Annotated[float | None, typer.Option(help="Share of the peak that training reaches, 0 to 1.")] = None,
    price_per_hour: Annotated[float | None, typer.Option(min=0, help="Dollars for one GPU.")] = None,
) -> None:
    """What training and evaluation would take. If a stage does not fit: what would, and exit code 1."""
    quiet_libraries()
    from rich.console import Console

    params = _params(profile)
    from calm.plan import Options, plan
    from calm.plan.tables import render, to_json

    made = plan(params, Options(gpu, gpus, mfu, price_per_hour))
    if as_json:
        typer.echo(json.dumps(to_json(made), indent=2))
    else:
        Console().print(render(made), soft_wrap=True)
    if made.problems:
        tell("this plan does not fit:\n" + "\n".join(made.problems))
        raise typer.Exit(1)


def _params(profile: str | None) -> Params:
    """params.yaml as it is, or as `calm profile use` would make it."""
    from ruamel.yaml import YAML

    from calm.params import load_params, parse_params
    from calm.profiles import merged

    if profile is None:
        return load_params()
    return parse_params(YAML(typ="safe").load(merged(profile)), f"profile {profile}")
