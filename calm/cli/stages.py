"""One verb per stage, named as in dvc.yaml (dashes for underscores). They find their files by `Layout()`."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from calm.layout import Layout
    from calm.params import Params


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST = 32 * 2**20  # bytes; the highest M_MMAP_THRESHOLD that glibc takes
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)
# Where params.yaml has the names that a stage is run for.
KEYS = {
    "fetch": "data.datasets",
    "prepare": "data.datasets",
    "evaluate": "evaluation.tasks",
    "ablate": "ablations",
    "cross_validate": "cross_validations",
}

app = typer.Typer()
verb = app.command(rich_help_panel="Stages (run them by `dvc repro` or `snakemake`)")

Name = Annotated[str, typer.Argument(help="A name from params.yaml.", show_default=False)]
profiles = typer.Typer(no_args_is_help=True, help="Switch params.yaml between profiles.")
ProfileName = Annotated[str, typer.Argument(help="File name in profiles/, without .yaml.", show_default=False)]


@verb
def fetch(dataset: Name) -> None:
    """Find or download a dataset, and hash it."""
    run_stage("fetch", "calm.data.sources", dataset)


@verb
def prepare(dataset: Name) -> None:
    """Decode every photograph of a dataset once, into shards and tables."""
    run_stage("prepare", "calm.data.prepare", dataset)


@verb
def split() -> None:
    """Assign every photograph to training or to test."""
    run_stage("split", "calm.data.splits")


@verb
def filter_leakage() -> None:
    """Keep the test photographs of every dataset out of every training list."""
    run_stage("filter_leakage", "calm.data.leakage.stage")


@verb
def generate_texts(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent and what it would cost; send nothing.")
    ] = False,
) -> None:
    """Write guidance texts for every state of every attribute, and other wordings of the prompts."""
    params, layout = start("generate_texts")
    from calm.writing import stage

    if dry_run:
        typer.echo(stage.dry_run(params, layout))
    else:
        stage.generate_texts(params, layout)


@verb
def build_instructions() -> None:
    """Write the prompts and answers to train on."""
    run_stage("build_instructions", "calm.instructions.stage")


@verb
def pretrain(run: Annotated[str, typer.Argument(help="attributes | alignment", show_default=False)]) -> None:
    """Train the MFAM alone."""
    run_stage("pretrain", "calm.training.pretrain", run)


@verb
def finetune(run: Annotated[str, typer.Argument(help="comments | scores", show_default=False)]) -> None:
    """Train MFAM and language model."""
    run_stage("finetune", "calm.training.finetune", run)


@verb
def evaluate(task: Name) -> None:
    """Measure a model on held-out photographs."""
    layout = run_stage("evaluate", "calm.evaluation.stage", task)
    write_digest(layout, task, layout.result(task))


@verb
def ablate(name: Name) -> None:
    """Train and measure the recipe without one of its parts."""
    layout = run_stage("ablate", "calm.experiments", name)
    write_digest(layout, f"ablate-{name}", layout.ablation(name))


@verb
def cross_validate(name: Name) -> None:
    """Score every rated photograph with models that never saw its score."""
    layout = run_stage("cross_validate", "calm.experiments.cross_validation", name)
    write_digest(layout, f"cross-validation-{name}", layout.cross_validation(name))


@verb
def report() -> None:
    """Write results/report.html and its Markdown twin."""
    run_stage("report", "calm.report.stage")


def run_stage(stage: str, module: str, *name: str) -> Layout:
    """Run the function of the stage's name in `module`, for the name that a stage of several is run for.

    Raises:
        ValueError: params.yaml does not have that name; lists those that there are.
    """
    params, layout = start(stage)
    for chosen in name:
        check_name(stage, chosen, params)
    getattr(import_module(module), stage)(*name, params, layout)
    return layout


def start(stage: str) -> tuple[Params, Layout]:
    """Checked params and the layout of the working directory, with the stage's threads set.

    Sums of floats depend on the number of threads, so params.yaml decides it, whoever starts the stage. Libraries
    read these variables when they are imported: call this first.

    Raises:
        ParamsError: a key is wrong, if only of a stage that comes much later.
    """
    from calm.layout import Layout
    from calm.params import load_params

    params = load_params()
    threads = str(getattr(params.threads, stage))
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, threads))
    keep_memory()
    quiet_libraries()
    from calm.profiles import check_open_sections

    check_open_sections(params)
    return params, Layout()


def keep_memory() -> None:
    """Memory of tensors up to `LARGEST` stays with the process, as far as the C library can be told so.

    Given back and fetched anew, it costs up to a tenth of a training step: the system zeroes every page. The few larger
    blocks are given back: where they stay too, the gaps between blocks take .2 GB more (docs/benchmarks/step.md).
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, LARGEST)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def quiet_libraries() -> None:
    """No progress bars for files read in a second, no advice to the authors of libraries."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    # transformers imports DeepSpeed wherever it is installed, and that speaks on standard output.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno > logging.WARNING)


def check_name(stage: str, name: str, params: Params) -> None:
    """Refuse a name that params.yaml does not have.

    Raises:
        ValueError: lists the names that there are.
    """
    from calm.training.settings import TRAINING_RUNS

    key = KEYS.get(stage, stage)
    names = [run for section, run in TRAINING_RUNS if section == stage] or attrgetter(key)(params)
    if name not in names:
        raise ValueError(f"'{name}' is not in {key} of params.yaml; there are: {', '.join(names) or 'none'}")


def write_digest(layout: Layout, name: str, folder: Path) -> None:
    """List the files of one result with their hashes.

    DVC stages cannot depend on a list that params.yaml decides, but they can on a folder: the report depends on the
    folder of these digests, and so on every task and ablation, whatever they are called.
    """
    from calm.io import sha256_file, write_json

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(layout.digest(name), {path.relative_to(folder).as_posix(): sha256_file(path) for path in files})


@profiles.command("list")
def list_profiles() -> None:
    """List the profiles; a star marks the one in params.yaml."""
    from calm.params import load_params
    from calm.profiles import names, summary

    current = load_params().profile
    for name in names():
        typer.echo(f"{'*' if name == current else ' '} {name:<10} {summary(name)}")


@profiles.command()
def show(name: ProfileName) -> None:
    """Print params.yaml as `use` would write it."""
    from calm.profiles import merged

    typer.echo(merged(name), nl=False)


@profiles.command()
def use(name: ProfileName) -> None:
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


@profiles.command()
def save(name: ProfileName) -> None:
    """Write the values of params.yaml back into its profile, for the keys that the profile names."""
    from calm.profiles import save

    lines = save(name)
    typer.echo(f"profiles/{name}.yaml: {lines} lines changed")
