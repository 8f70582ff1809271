"""One verb per stage, named as in dvc.yaml (dashes for underscores). They find their files by `Layout()`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from calm.layout import Layout
    from calm.params import Params

PANEL = "Stages (run them by `dvc repro` or `snakemake`)"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)

Name = Annotated[str, typer.Argument(help="A name from params.yaml.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line, in the order of the graph."""
    verbs: tuple[Callable[..., None], ...] = (
        fetch,
        prepare,
        split,
        filter_leakage,
        generate_texts,
        build_instructions,
        pretrain,
        finetune,
        evaluate,
        ablate,
        cross_validate,
        report,
    )
    for verb in verbs:
        app.command(verb.__name__.replace("_", "-"), rich_help_panel=PANEL)(verb)


def fetch(dataset: Name) -> None:
    """Find or download a dataset, and hash it."""
    params, layout = start("fetch")
    chosen(dataset, params.data.datasets, "data.datasets")
    from calm.data import sources

    sources.fetch(dataset, params, layout)


def prepare(dataset: Name) -> None:
    """Decode every photograph of a dataset once, into shards and tables."""
    params, layout = start("prepare")
    chosen(dataset, params.data.datasets, "data.datasets")
    from calm.data.prepare import stage

    stage.prepare(dataset, params, layout)


def split() -> None:
    """Say of every photograph whether it is for training or for test."""
    params, layout = start("split")
    from calm.data.splits import stage as splits

    splits.split(params, layout)


def filter_leakage() -> None:
    """Keep the test photographs of every dataset out of every training list."""
    params, layout = start("filter_leakage")
    from calm.data.leakage import stage as leakage

    leakage.filter_leakage(params, layout)


def generate_texts(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent and what it would cost; send nothing.")
    ] = False,
) -> None:
    """Write guidance texts for every state of every attribute, and ways of asking."""
    params, layout = start("generate_texts")
    from calm.writing import stage

    if dry_run:
        typer.echo(stage.dry_run(params, layout))
    else:
        stage.generate_texts(params, layout)


def build_instructions() -> None:
    """Write the prompts and answers to train on."""
    params, layout = start("build_instructions")
    from calm.instructions.stage import build_instructions as build

    build(params, layout)


def pretrain(run: Annotated[str, typer.Argument(help="attributes | alignment", show_default=False)]) -> None:
    """Train the MFAM alone."""
    params, layout = start("pretrain")
    chosen(run, ("attributes", "alignment"), "pretrain")
    from calm.training import pretrain as stage

    stage.pretrain(run, params, layout)


def finetune(run: Annotated[str, typer.Argument(help="comments | scores", show_default=False)]) -> None:
    """Train MFAM and language model."""
    params, layout = start("finetune")
    chosen(run, ("comments", "scores"), "finetune")
    from calm.training import finetune as stage

    stage.finetune(run, params, layout)


def evaluate(task: Name) -> None:
    """Measure a model on held-out photographs."""
    params, layout = start("evaluate")
    chosen(task, params.evaluation.tasks, "evaluation.tasks")
    from calm.evaluation import stage as evaluation

    evaluation.evaluate(task, params, layout)
    write_digest(layout, task, layout.result(task))


def ablate(name: Name) -> None:
    """Train and measure the recipe with one thing off."""
    params, layout = start("ablate")
    chosen(name, params.ablations, "ablations")
    from calm.experiments import ablations

    ablations.ablate(name, params, layout)
    write_digest(layout, f"ablate-{name}", layout.ablation(name))


def cross_validate(name: Name) -> None:
    """Score every rated photograph by models that never saw it."""
    params, layout = start("cross_validate")
    chosen(name, params.cross_validations, "cross_validations")
    from calm.experiments import cross_validation

    cross_validation.cross_validate(name, params, layout)
    write_digest(layout, f"cross-validation-{name}", layout.cross_validation(name))


def report() -> None:
    """Write results/report.html and its Markdown twin."""
    params, layout = start("report")
    from calm.report import stage

    stage.report(params, layout)


def start(stage: str) -> tuple[Params, Layout]:
    """Checked params and the layout of the working directory, with the stage's threads set.

    Sums of floats depend on the number of threads, so params.yaml decides it, whoever starts the stage. Libraries
    read these variables when they are imported: call this first.

    Raises:
        ParamsError: a key is wrong, if only of a stage that comes much later.
    """
    from calm.layout import Layout
    from calm.params import load_params
    from calm.sections import check_open_sections

    params = load_params()
    threads = str(getattr(params.threads, stage))
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, threads))
    quiet_libraries()
    check_open_sections(params)
    return params, Layout()


def quiet_libraries() -> None:
    """No progress bars for files read in a second, no advice to the authors of libraries."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    # transformers imports DeepSpeed wherever it is installed, and that speaks on standard output.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno > logging.WARNING)


def chosen(name: str, names: Collection[str], where: str) -> None:
    """Refuse a name that params.yaml does not have.

    Raises:
        ValueError: lists the names that there are.
    """
    if name not in names:
        raise ValueError(f"'{name}' is not in {where} of params.yaml; there are: {', '.join(names) or 'none'}")


def write_digest(layout: Layout, name: str, folder: Path) -> None:
    """List the files of one result with their hashes.

    DVC stages cannot depend on a list that params.yaml decides, but they can on a folder: the report depends on the
    folder of these digests, and so on every task and ablation, whatever they are called.
    """
    from calm.io import sha256_file, write_json

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(layout.digest(name), {path.relative_to(folder).as_posix(): sha256_file(path) for path in files})
