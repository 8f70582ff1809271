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

Main = Callable[..., int | None]
LIBRARIES = [
    *("dvc.cli.parser", "dvc.repo", "dvc.stage.run", "openai", "pandas", "pyarrow.parquet", "pydantic", "pytest"),
    *("scipy.stats", "sklearn.feature_extraction.text", "snakemake.cli", "snakemake.workflow", "torch", "torchvision"),
    *("transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama", "typer"),
]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(LIBRARIES)


def start(
    main: Main,
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
    where = (folder or Path.cwd(), environment or {**os.environ}, out, errors)
    process = _FORKS.Process(target=_begin, args=(main, arguments, *where))
    process.start()
    return process


def _begin(main: Main, arguments: Any, folder: Path, environment: dict[str, str], out: Any, errors: Any) -> None:
    import torch

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.dup2(os.open(out, new), 1)
    os.dup2(os.open(errors, new) if errors else 1, 2)
    sys.exit(main(*arguments))
