"""One process of a run: `python -m calm.training.loop.worker JOB`, started by a launcher (processes.py)."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from calm.layout import Layout
from calm.params import parse_params
from calm.training.loop.processes import PROBLEM, TrainingError, join


def main(job: Path) -> int:
    """Do what the job file says, as far as training goes; the exit code."""
    content = json.loads(job.read_text(encoding="utf-8"))
    torch.set_num_threads(content["threads"])
    processes = join()
    try:
        with (job.parent / "lock").open("a") as lock:
            processes.first(lambda: _hold(lock, job.parent))
            _run(content, str(job))
    except Exception as error:
        if _lost_another(error):
            raise  # why is for the other to say; this traceback is in the log
        message = str(error) if isinstance(error, TrainingError) else f"{type(error).__name__}: {error}"
        (job.parent / PROBLEM.replace("*", str(processes.rank))).write_text(message, encoding="utf-8")
        if isinstance(error, (ValueError, OSError)):
            return 1
        raise
    if processes.together:
        distributed.destroy_process_group()
    return 0


def _run(content: dict[str, Any], where: str) -> None:
    from calm.training import finetune, pretrain

    params, layout, arguments = parse_params(content["params"], where), Layout(), content["arguments"]
    match content["stage"]:
        case "pretrain":
            pretrain.pretrain(arguments["run"], params, layout)
        case "finetune":
            start = [Path(folder) for folder in arguments["start"]]
            nowhere = Path(arguments["out"])  # written by the process that started this one
            finetune.tune(arguments["run"], start, nowhere, None, params, layout, arguments["label"])
        case stage:
            raise AssertionError(stage)


def _lost_another(error: Exception) -> bool:
    """Whether the error is that another process went away: gloo has no type for it."""
    return isinstance(error, distributed.DistBackendError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error) and "onnection" in str(error)
    )


def _hold(lock: Any, state: Path) -> None:
    """Keep out processes of a second start, for as long as this one lives."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TrainingError(f"{state} is in use by processes of an earlier start: wait for them, or end them") from None


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    # All is on disk. Taken apart in the usual way, a process once aborted in a library's thread (ZeRO-3 on gloo), and
    # the stage took it for a failure.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
