"""Programs in processes that are forked from one which has imported the large libraries: they start in a moment.

That process has imported neither calm nor the tests, so that a program may run those of another checkout.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("dvc.cli.parser", "dvc.repo", "dvc.stage.run", "openai", "pandas", "pyarrow.parquet", "pydantic", "pytest"),
    *("scipy.stats", "sklearn.feature_extraction.text", "snakemake.cli", "snakemake.workflow", "torch", "torchvision"),
    *("transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama", "typer"),
)
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(list(LIBRARIES))


def start(
    main: Callable[..., object],
    *arguments: Any,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
    out: str | Path = os.devnull,
    errors: Path | None = None,
) -> BaseProcess:
    """Begin `main(*arguments)`; what it returns or gives to `sys.exit` is its exit code.

    Args:
        folder: where, if not in the current one.
        environment: in place of this process's one.
        out: file of what it and its children print.
        errors: file of their standard error, if it is another.
    """
    place = (folder or Path.cwd(), {**os.environ} if environment is None else environment)
    process = _FORKS.Process(target=_begin, args=(main, arguments, *place, out, errors))
    process.start()
    return process


def run(main: Callable[..., object], *arguments: Any, out: Path, **options: Any) -> tuple[int | None, str]:
    """As `start`; waits, and gives the exit code and what was printed to `out`."""
    process = start(main, *arguments, out=out, **options)
    process.join()
    return process.exitcode, out.read_text(encoding="utf-8")


def _begin(
    main: Callable[..., object],
    arguments: tuple[Any, ...],
    folder: Path,
    environment: dict[str, str],
    out: str | Path,
    errors: Path | None,
) -> None:
    import torch

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.dup2(os.open(out, new), 1)
    os.dup2(os.open(errors, new) if errors else 1, 2)
    sys.exit(main(*arguments))  # type: ignore[arg-type]
