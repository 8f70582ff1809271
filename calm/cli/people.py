"""`calm score`, `comment`, `suggest` and `personalise`: the trained model on anybody's photographs."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calm.cli.errors import tell
from calm.cli.stages import quiet_libraries

if TYPE_CHECKING:
    from PIL.Image import Image

    from calm.assistant import Calm

DEFAULT_MODEL = Path("models/finetune/scores")
BATCH = 16  # photographs held in memory at a time

Row = dict[str, Any]
Files = Annotated[list[str], typer.Argument(help="Photographs, folders, or quoted globs.", show_default=False)]
Model = Annotated[Path, typer.Option("--model", help="Folder of a trained checkpoint.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")]
AsJson = Annotated[bool, typer.Option("--json", help="A JSON list with one object per photograph.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Comma-separated values with a header.")]


class Readout(StrEnum):
    """How a score is read from the model."""

    text = "text"
    expectation = "expectation"
    regression = "regression"


class How(StrEnum):
    """How a score is made personal."""

    ridge = "ridge"
    in_context = "in-context"


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (score, comment, suggest, personalise):
        app.command(rich_help_panel="Photographs")(verb)


def score(
    files: Files,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    readout: Annotated[Readout, typer.Option(help="Which readout is called `score`.")] = Readout.regression,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Aesthetic scores, by all three readouts."""

    def rows(calm: Calm, images: Sequence[Image]) -> Iterator[Row]:
        for result in calm.score(images, batch_size=BATCH):
            values = {name.value: getattr(result, name.value) for name in Readout}
            yield {"score": values[readout.value], **values}

    run(files, model, device, rows, as_json, as_csv)


def comment(
    files: Files,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """What is well done and what is not, in a sentence or two."""

    def rows(calm: Calm, images: Sequence[Image]) -> Iterator[Row]:
        for text in calm.comment(images, batch_size=BATCH):
            yield {"comment": text}

    run(files, model, device, rows, as_json, as_csv)


def suggest(
    files: Files,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    top: Annotated[int, typer.Option(min=1, help="Suggestions for each photograph.")] = 3,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """What to change, the likeliest flaw first; "Leave it as it is." where none is likely enough."""

    def rows(calm: Calm, images: Sequence[Image]) -> Iterator[Row]:
        for suggestions in calm.suggest(images, top=top):
            yield {
                "suggestions": [
                    {"attribute": s.attribute, "state": s.state, "text": s.text, "probability": s.probability}
                    for s in suggestions
                ]
            }

    run(files, model, device, rows, as_json, as_csv)


def personalise(
    ratings: Annotated[Path, typer.Argument(help="Your scores: a csv with columns file, score.", show_default=False)],
    files: Annotated[
        list[str] | None, typer.Argument(help="Photographs to score; without any, rows of the csv without a score.")
    ] = None,
    low: Annotated[float, typer.Option("--min", help="Lowest score of your scale.")] = 1.0,
    high: Annotated[float, typer.Option("--max", help="Highest score of your scale.")] = 10.0,
    how: Annotated[How, typer.Option(help="ridge: on the model's features; in-context: your scores in the prompt.")] = (
        How.ridge
    ),
    readout: Annotated[Readout, typer.Option(help="Which readout the generic score is.")] = Readout.regression,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Scores as you would give them, learnt from photographs that you have scored."""
    from calm.cli.personalise import read_ratings, rows_of

    if readout is Readout.text:
        raise ValueError("--readout text has no value for every photograph: expectation or regression")
    given, unscored = read_ratings(ratings, low, high)

    def rows(calm: Calm, images: Sequence[Image]) -> Iterator[Row]:
        return rows_of(calm, images, given, scale=(low, high), how=how.value, readout=readout.value)

    run(files or unscored, model, device, rows, as_json, as_csv)


def run(
    names: Sequence[str],
    model: Path,
    device: str,
    rows: Callable[[Calm, Sequence[Image]], Iterator[Row]],
    as_json: bool,
    as_csv: bool,
) -> None:
    """Judge every photograph and print the results; unreadable ones are told and cost exit code 1 at the end.

    Raises:
        ValueError: both formats were asked for, or there is no photograph under `names`.
        FileNotFoundError: there is no checkpoint in `model`.
    """
    if as_json and as_csv:
        raise ValueError("--json and --csv exclude one another")
    paths, missing = find_photographs(names)
    for problem in missing:
        tell(problem)
    if not paths:
        raise typer.Exit(1)
    quiet_libraries()
    from calm.assistant import Calm

    calm = Calm.from_pretrained(model, device=device)
    made_by = origin(calm)
    unreadable: list[str] = []
    results = ({**row, **made_by} for row in judged(calm, paths, rows, unreadable))
    if as_csv:
        print_csv(results)  # line by line: a run that is stopped has told what it had found
    elif as_json:
        typer.echo(json.dumps(list(results), indent=2, ensure_ascii=False))
    elif found := list(results):
        print_table(found, made_by)
    if missing or unreadable:
        raise typer.Exit(1)


def judged(
    calm: Calm,
    paths: Sequence[str],
    rows: Callable[[Calm, Sequence[Image]], Iterator[Row]],
    unreadable: list[str],
) -> Iterator[Row]:
    """A row for every photograph that can be read, some photographs in memory at a time; the others go to the list."""
    from calm.data.progress import progress

    with progress("Photographs", len(paths), "photographs") as advance:
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            readable = dict(read(batch))
            unreadable += [path for path in batch if path not in readable]
            if readable:
                for path, row in zip(readable, rows(calm, list(readable.values())), strict=True):
                    yield {"file": path, **row}
            advance(len(batch))


def origin(calm: Calm) -> dict[str, str]:
    """Short hashes of the weights and of how photographs are brought to the model: other hashes, other scores."""
    preprocessing = json.dumps(calm.provenance["preprocessing"], sort_keys=True)
    return {
        "checkpoint": str(calm.provenance["checkpoint_sha256"])[:12],
        "preprocessing": hashlib.sha256(preprocessing.encode()).hexdigest()[:12],
    }


def find_photographs(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Expand folders (with all below them) and globs.

    Returns:
        The files, each once, in the order of `names`; and a message for every name that leads to none.
    """
    from calm.data.store.images import SUFFIXES

    found: dict[str, None] = {}
    problems: list[str] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            here = sorted(str(p) for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
            problem = f"{name}: no photograph in this folder ({', '.join(SUFFIXES)})"
        elif path.exists():
            here, problem = [name], ""
        elif glob.has_magic(name):
            here = sorted(p for p in glob.glob(name, recursive=True) if Path(p).is_file())
            problem = f"{name}: no file matches"
        else:
            here, problem = [], f"{name}: no such file or folder"
        found.update(dict.fromkeys(here))
        if not here:
            problems.append(problem)
    return list(found), problems


def read(paths: Sequence[str]) -> Iterator[tuple[str, Image]]:
    """Read photographs; tell of those that cannot be read and leave them out."""
    from calm.data.store.images import MAX_PIXELS, ImageError, read_image

    for path in paths:
        try:
            yield path, read_image(Path(path), max_pixels=MAX_PIXELS)
        except ImageError as error:
            tell(str(error))


def print_csv(results: Iterable[Row]) -> None:
    """One line per photograph, or per suggestion where there are several; each as soon as it is there."""
    writer = None
    for line in (line for row in results for line in _flat(row)):
        if writer is None:
            writer = csv.DictWriter(sys.stdout, list(line), lineterminator="\n")
            writer.writeheader()
        writer.writerow(line)
        sys.stdout.flush()
    if writer is None:
        typer.echo("file")


def print_table(results: Sequence[Row], made_by: dict[str, str]) -> None:
    """A table for people; what is the same for all rows goes below it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [line for row in results for line in _flat(row)]
    columns = [key for key in lines[0] if key not in made_by]
    table = Table(*columns)
    for line in lines:
        table.add_row(*(Text(_cell(line.get(key))) for key in columns))
    console = Console()
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in made_by.items()), style="dim", highlight=False)


def _flat(row: Row) -> Iterator[Row]:
    """One row for each suggestion of a photograph; the row itself where there is no such list."""
    suggestions = row.get("suggestions")
    if suggestions is None:
        yield row
        return
    rest = {key: value for key, value in row.items() if key not in {"file", "suggestions"}}
    for suggestion in suggestions:
        yield {"file": row["file"], **suggestion, **rest}


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
