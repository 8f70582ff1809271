"""`calm score`, `comment`, `suggest` and `personalise`: the trained model on anybody's photographs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calm.cli.culling import Copies, Pick, fingerprint
from calm.cli.photographs import Remembered, find_photographs, read_photographs
from calm.cli.printing import Row, print_csv, print_json_rows, print_results, tell
from calm.cli.stages import quiet_libraries
from calm.cli.stars import PERCENTILES, Stars

if TYPE_CHECKING:
    from PIL.Image import Image

    from calm.assistant import Calm

    Judge = Callable[[Calm, Sequence[Image]], Iterable[Row]]  # a row for each photograph

app = typer.Typer()
verb = app.command(rich_help_panel="Photographs")


class NumberFormat(StrEnum):
    """What the frozen parts compute in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    auto = "auto"  # bfloat16 where the processor has it


def _model(context: typer.Context, model: Path | None) -> Path | None:
    """With -C, a model is named as seen from that checkout, photographs as seen from where the command was started."""
    started = context.find_root().obj
    if started is None or started == Path.cwd():
        return model
    found = None if model is None else Path.cwd() / model
    os.chdir(started)
    return found


Files = Annotated[list[str], typer.Argument(help="Photographs, folders, or quoted globs.", show_default=False)]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        callback=_model,
        help="Folder of a checkpoint (models/finetune/scores), or ORG/NAME[@REVISION] of the model hub; without it, "
        "the model that comes with calm.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")]
Dtype = Annotated[NumberFormat, typer.Option("--dtype", help="float32: the same score in any batch; bfloat16: faster.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Photographs in memory at a time.")]
AsJson = Annotated[bool, typer.Option("--json", help="A JSON list with one object per photograph.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Comma-separated values with a header.")]
Cached = Annotated[bool, typer.Option("--cache/--no-cache", help="Give answers that were given before again.")]
Grouped = Annotated[bool, typer.Option("--groups", help="Bursts and near-duplicates together, the best of each first.")]
CopyBest = Annotated[
    Path | None, typer.Option(file_okay=False, help="Copy here the best of each group, and what is in none.")
]
Xmp = Annotated[
    bool,
    typer.Option(
        "--xmp",
        help="Stars into sidecars, which photo editors read, where there is no rating: 2, 3, 4 and 5 from percentile "
        f"{', '.join(map(str, PERCENTILES))}.",
    ),
]
Inside = Annotated[
    bool, typer.Option("--inside", help="With --xmp: into JPEG, PNG, WebP and TIFF themselves (needs exiv2).")
]
OverwriteRatings = Annotated[bool, typer.Option("--overwrite-ratings", help="With --xmp: also where there is one.")]
CHUNK = 64  # photographs whose remembered answers are looked up at once


class Readout(StrEnum):
    """How a score is read from the model."""

    text = "text"
    expectation = "expectation"
    regression = "regression"


@dataclass(frozen=True)
class Way:
    """Who is asked, of how many photographs at a time, and how the answers are printed."""

    model: Path | None
    device: str
    dtype: NumberFormat
    batch_size: int
    as_json: bool
    as_csv: bool
    scores: bool = False  # answers are a public's scores
    public: str | None = None  # None is the model's first
    arrange: Callable[[Iterable[Row]], Iterable[Row]] = iter  # which rows are printed, in which order
    question: Mapping[str, Any] | None = None  # what is asked beside model and photograph; None: do not remember
    copies: Path | None = None  # a folder whose files are not asked about


class How(StrEnum):
    """How a score is made personal."""

    ridge = "ridge"
    in_context = "in-context"


@verb
def score(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = NumberFormat.float32,
    batch_size: BatchSize = 8,
    public: Annotated[
        str | None, typer.Option(help="Whose scores to predict: para, oasis, ...; default: the first of the model.")
    ] = None,
    readout: Annotated[Readout | None, typer.Option(help="The `score`; default: regression, beside all.")] = None,
    best_first: Annotated[bool, typer.Option("--sort", help="The highest score first.")] = False,
    top: Annotated[
        int | None, typer.Option(min=1, help="The best so many alone, the highest score first; with groups, groups.")
    ] = None,
    least: Annotated[float | None, typer.Option("--min", help="Those with this score or a higher one alone.")] = None,
    groups: Grouped = False,
    copy_best: CopyBest = None,
    xmp: Xmp = False,
    inside: Inside = False,
    overwrite_ratings: OverwriteRatings = False,
    cached: Cached = True,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Aesthetic scores by all three readouts, and how many of 100 photographs the public scored lower."""
    if (overwrite_ratings or inside) and not xmp:
        raise ValueError("--inside and --overwrite-ratings have no effect without --xmp")
    pick = Pick(best_first, top, least, groups or copy_best is not None)
    stars = Stars(overwrite_ratings, inside) if xmp else None
    copies = Copies(copy_best) if copy_best else None

    def arrange(rows: Iterable[Row]) -> Iterable[Row]:
        rows = pick(rows) if stars is None else stars.given(pick(rows))
        return rows if copies is None else copies.made(rows)

    judge = partial(_scored, batch_size=batch_size, public=public, readout=readout)
    question = {"verb": "score", "public": public, "score": readout, "read": read_for(readout)} if cached else None
    way = Way(model, device, dtype, batch_size, as_json, as_csv, True, public, arrange, question, copy_best)
    run(files, judge, way)
    if any(part is not None and part.failed for part in (stars, copies)):
        raise typer.Exit(1)


def read_for(readout: Readout | None) -> list[Readout]:
    """All readouts, but the text, which takes a pass or two more, for nobody who asks for another one."""
    return [one for one in Readout if one is not Readout.text or readout in (None, Readout.text)]


def _scored(
    calm: Calm, images: Sequence[Image], batch_size: int, public: str | None, readout: Readout | None
) -> Iterator[Row]:
    written = Readout.text in (names := read_for(readout))
    for image, result in zip(images, calm.score(images, batch_size, public, written=written), strict=True):
        values = {name.value: getattr(result, name.value) for name in names}
        told = {"spread": result.spread, "percentile": result.percentile}
        yield {"score": values[readout or Readout.regression], **values, **told, "fingerprint": fingerprint(image)}


@verb
def comment(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = NumberFormat.float32,
    batch_size: BatchSize = 8,
    cached: Cached = True,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """What is well done and what is not, in a sentence or two."""

    def judge(calm: Calm, images: Sequence[Image]) -> list[Row]:
        return [{"comment": text} for text in calm.comment(images, batch_size)]

    question = {"verb": "comment"} if cached else None
    run(files, judge, Way(model, device, dtype, batch_size, as_json, as_csv, question=question))


@verb
def suggest(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = NumberFormat.float32,
    batch_size: BatchSize = 8,
    top: Annotated[int, typer.Option(min=1, help="Suggestions for each photograph.")] = 3,
    cached: Cached = True,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """What to change, likeliest flaw first; "Leave it as it is." if no flaw is likely enough."""

    def judge(calm: Calm, images: Sequence[Image]) -> list[Row]:
        return [
            {"suggestions": [vars(one) for one in suggestions]} for suggestions in calm.suggest(images, top, batch_size)
        ]

    question = {"verb": "suggest", "top": top} if cached else None
    run(files, judge, Way(model, device, dtype, batch_size, as_json, as_csv, question=question))


@verb
def personalise(
    ratings: Annotated[Path, typer.Argument(help="Your scores: a csv with columns file, score.", show_default=False)],
    files: Annotated[
        list[str] | None, typer.Argument(help="Photographs to score; default: those in the csv without a score.")
    ] = None,
    low: Annotated[float, typer.Option("--min", help="Lowest score of your scale.")] = 1.0,
    high: Annotated[float, typer.Option("--max", help="Highest score of your scale.")] = 10.0,
    how: Annotated[How, typer.Option(help="ridge: on the model's features; in-context: your scores in the prompt.")] = (
        How.ridge
    ),
    readout: Annotated[Readout, typer.Option(help="Which readout to use as the generic score.")] = Readout.regression,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = NumberFormat.float32,
    batch_size: BatchSize = 8,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Scores as you would give them, learnt from photographs that you have scored."""
    from calm.cli.personalise import read_ratings, rows_of

    if readout is Readout.text:
        raise ValueError("--readout text may give no number for a photograph: use expectation or regression")
    given, unscored = read_ratings(ratings, low, high)
    if not files and not unscored:
        raise ValueError(f"{ratings}: every photograph has a score: name photographs to score, or leave some empty")

    def judge(calm: Calm, images: Sequence[Image]) -> Iterator[Row]:
        return rows_of(calm, images, given, scale=(low, high), how=how.value, readout=readout.value)

    run(files or unscored, judge, Way(model, device, dtype, batch_size, as_json, as_csv, True))


def run(names: Sequence[str], judge: Judge, way: Way) -> None:
    """Judge every photograph and print the results; unreadable ones are told and cost exit code 1 at the end.

    Raises:
        ValueError: both formats were asked for, there is no photograph under `names`, or the model does not know the
            public.
        FileNotFoundError: there is no checkpoint in `way.model`.
    """
    if way.as_json and way.as_csv:
        raise ValueError("--json and --csv exclude one another")
    paths, missing = find_photographs(names)
    if way.copies is not None:  # those of an earlier run
        paths = [path for path in paths if not Path(path).resolve().is_relative_to(way.copies.resolve())]
    for problem in missing:
        tell(problem)
    if not paths:
        raise typer.Exit(1)
    quiet_libraries()
    from calm.assistant import Calm

    calm = Calm.from_pretrained(way.model, device=way.device, dtype=way.dtype.value)
    made_by = origin(calm, calm.public(way.public) if way.scores else None)
    unreadable: list[str] = []
    remembered = Remembered(None if way.question is None else {**way.question, **made_by, "device": way.device})
    rows = way.arrange(judged(calm, paths, judge, way.batch_size, unreadable, remembered))
    results = ({**row, **made_by} for row in rows)
    if way.as_csv:
        print_csv(results)  # row by row, as --json: a run that is stopped has told what it had found
    elif way.as_json:
        print_json_rows(results)
    else:
        print_results(results, made_by)
    if missing or unreadable:
        raise typer.Exit(1)


def judged(
    calm: Calm,
    paths: Sequence[str],
    judge: Judge,
    batch_size: int,
    unreadable: list[str],
    remembered: Remembered,
) -> Iterator[Row]:
    """A row for every photograph that can be read, so many in memory at a time; the others go to the list.

    A row that was remembered is given without reading the photograph again.
    """
    from calm.data.progress import progress

    with progress("Photographs", len(paths), "photographs") as advance:
        for start in range(0, len(paths), CHUNK):
            keys = {path: remembered.key(path) for path in paths[start : start + CHUNK]}
            known = {path: row for path, key in keys.items() if (row := remembered.get(key)) is not None}
            fresh = _fresh(calm, [path for path in keys if path not in known], judge, batch_size)
            for path, key in keys.items():
                row = known[path] if path in known else next(fresh)
                if row is None:
                    unreadable.append(path)
                else:
                    if path not in known:
                        remembered.keep(key, row)
                    yield {"file": path, **row}
                advance(1)


def _fresh(calm: Calm, paths: Sequence[str], judge: Judge, batch_size: int) -> Iterator[Row | None]:
    """The row of each photograph, in order; None of one that cannot be read."""
    for batch, readable in read_photographs(paths, batch_size, calm.max_side):
        rows = iter(judge(calm, list(readable.values())) if readable else ())
        yield from (next(rows) if path in readable else None for path in batch)


def origin(calm: Calm, public: str | None = None) -> dict[str, str]:
    """Which model answered, with whose taste where it is a score, and how their scores came about.

    And short hashes of its weights and of how it gets photographs: with others, other scores.
    """
    preprocessing = json.dumps(calm.provenance["preprocessing"], sort_keys=True)
    return {
        "model": str(calm.provenance["model"]),
        **({"public": f"{public} ({calm.provenance['publics'][public]} scores)"} if public else {}),
        "checkpoint": str(calm.provenance["checkpoint_sha256"])[:12],
        "preprocessing": hashlib.sha256(preprocessing.encode()).hexdigest()[:12],
    }
