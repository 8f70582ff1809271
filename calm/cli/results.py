"""`calm metrics`: the figures of all tasks as one table (`dvc metrics show` prints every number there is).

`calm plan` says what a profile would take before a GPU is rented: parameters, FLOPs, memory, hours and price.
`calm release` writes the trained model as one file with its card, `calm export` a whole checkpoint that transformers
reads without calm, `calm push` puts that on the model hub, `calm fetch-spice` brings what a figure needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calm.cli.printing import tell
from calm.cli.stages import quiet_libraries

if TYPE_CHECKING:
    from rich.table import Table

    from calm.params import Params
    from calm.report.tables import Section


app = typer.Typer()
verb = app.command(rich_help_panel="Results")
Model = Annotated[
    Path | None, typer.Option("--model", help="Folder of a checkpoint; without it, the model that comes with calm.")
]


@verb
def metrics(
    everything: Annotated[bool, typer.Option("--all", help="Every figure, not only the first few of a task.")] = False,
) -> None:
    """Results of every task, with intervals and with what chance or a baseline reaches."""
    from rich.console import Console

    from calm.layout import Layout
    from calm.params import load_params
    from calm.report.tables import SHOWN, sections

    layout, console = Layout(), Console()
    console.print(table(sections(load_params(), layout), shown=None if everything else SHOWN))
    if not everything:
        console.print("All figures: calm metrics --all", style="dim")
    if layout.report.exists():
        console.print(f"With curves and photographs: {layout.report}", style="dim")


@verb
def release(
    folder: Annotated[
        Path | None, typer.Argument(help="Where to write; default: where calm looks for the model that comes with it.")
    ] = None,
) -> None:
    """Write what was trained into one file, with its model card."""
    from calm.layout import Layout
    from calm.model.released import FOLDER
    from calm.params import load_params
    from calm.report.pages import release as write

    write(folder or FOLDER, load_params(), Layout())
    typer.echo(f"{folder or FOLDER}: the model and its card")


@verb
def export(
    folder: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)], model: Model = None
) -> None:
    """Write a whole checkpoint, with its code and card, that transformers reads where calm is not installed."""
    from calm.cli.stages import quiet_libraries

    quiet_libraries()
    from calm.sharing import export as write

    write(model, folder)
    typer.echo(f'{folder}: AutoModelForImageTextToText.from_pretrained("{folder}", trust_remote_code=True) reads it')


@verb
def push(
    name: Annotated[str, typer.Argument(help="ORG/NAME on the model hub.", show_default=False)],
    model: Model = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new model public; without this it is private.")] = (
        False
    ),
) -> None:
    """Export a checkpoint to the model hub in one commit; the token is taken from HF_TOKEN."""
    from tempfile import TemporaryDirectory

    from calm.cli.stages import quiet_libraries

    quiet_libraries()
    from calm.sharing import export as write
    from calm.sharing import push as send

    with TemporaryDirectory(prefix="calm-") as temporary:
        write(model, Path(temporary) / "exported")
        revision = send(Path(temporary) / "exported", name, private=not public)
    typer.echo(f"{name}@{revision}: pushed; calm score --model {name} photo.jpg reads it")


@verb
def fetch_spice(
    folder: Annotated[Path, typer.Argument(help="Where to put the parser's jars, some 400 MB.", show_default=False)],
) -> None:
    """Fetch and check what the caption metric SPICE needs beyond Python packages."""
    from calm.evaluation.statistics.jars import FOLDER_VARIABLE, fetch_corenlp

    for name, value in fetch_corenlp(folder).items():
        typer.echo(f"{value}  {name}")
    typer.echo(f"To use it: export {FOLDER_VARIABLE}={folder.resolve()}")


def table(sections: list[Section], shown: int | None = None) -> Table:
    """The first `shown` headline figures of every task under its name and what its labels are; all of them if None."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    found = Table("figure", "value", "interval", "beside it", box=box.SIMPLE_HEAD, pad_edge=False)
    for section in sections:
        labels = escape(section.labels.split(":")[0])
        found.add_row(f"[bold]{section.name}[/bold]", "", "", f"[dim]{labels} labels[/dim]")
        for row in section.rows[:shown]:
            found.add_row(f"  {row.told}", row.value, row.interval, row.beside or row.note)
        found.add_section()
    return found


@verb
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
