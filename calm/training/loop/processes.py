"""The processes of one run: how a stage starts them, who this one is, and what all of them say.

The stage `calm finetune scores` of a run with several processes does three things: it starts them here, by the launcher
in params, with a job file that says what it was asked for itself; each of them builds the same model, trains its part
(calm/training/loop/worker.py) and leaves; then the stage builds the model once more, takes what they left in the last
checkpoint, and writes its outputs as in a run of one process. So outputs are written by one process and one code path.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from calm.io import write_json
from calm.layout import Layout
from calm.params import Params
from calm.training.settings import Strategy

Value = TypeVar("Value")
WORKER = "calm.training.loop.worker"
PROBLEM = "problem-*.txt"  # what a process says before it ends, by rank
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class TrainingError(ValueError):
    """Training that cannot go on; the message says why, and what is kept."""


class Processes:
    """One process alone, or the members of torch's default group.

    Attributes:
        rank: number of this process.
        world: how many there are.
    """

    def __init__(self) -> None:
        self.together = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if self.together else 0
        self.world = distributed.get_world_size() if self.together else 1

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, the same bits on each."""
        if self.together:
            distributed.all_reduce(values)
        return values

    def first(self, action: Callable[[], Value]) -> Value:
        """What rank 0 gets from `action`, which the others do not run. An error there is an error everywhere."""

        def run() -> Any:
            return action() if self.rank == 0 else None

        found: Value = self.agree(run)[0]
        return found

    def agree(self, action: Callable[[], Value]) -> list[Value]:
        """Run `action` on every process; if it fails on one it has failed on all, so that nobody waits for the dead.

        Raises:
            TrainingError: with what the failing processes say.
        """
        result: Any = None
        problem = None
        try:
            result = action()
        except Exception as error:  # told on every process
            if not self.together:
                raise
            problem = f"{type(error).__name__}: {error}" if not isinstance(error, TrainingError) else str(error)
        answers: list[Any] = [(result, problem)] * self.world  # in the order of their ranks
        if self.together:
            distributed.all_gather_object(answers, (result, problem))
        if problems := sorted({said for _, said in answers if said}):
            raise TrainingError("; ".join(problems))
        return [result for result, _ in answers]


def join() -> Processes:
    """Enter the group that the launcher's environment variables describe; alone where there are none."""
    if "RANK" in os.environ and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return Processes()


def launch(stage: str, arguments: Mapping[str, Any], params: Params, layout: Layout, state: Path) -> None:
    """Have the processes of `params.strategy` run `stage(**arguments)` to the end of its training.

    Does nothing in a run of one process, and in the processes that were started here.

    Raises:
        TrainingError: they ended early; their checkpoints stay in `state`.
    """
    if params.strategy.kind == "single" or "RANK" in os.environ:
        return
    state.mkdir(parents=True, exist_ok=True)
    for old in state.glob(PROBLEM):
        old.unlink()
    job = (state / "job.json").resolve()
    threads = torch.get_num_threads()
    content = {"stage": stage, "arguments": arguments, "params": params.model_dump(mode="json"), "threads": threads}
    write_json(job, content)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    code = _wait([*command(params.strategy, threads), WORKER, str(job)], layout.root, environment)
    if code:
        said = sorted({path.read_text(encoding="utf-8") for path in state.glob(PROBLEM)})
        why = "; ".join(said) or "one of them died without a word (killed, out of memory?)"
        raise TrainingError(f"{stage}: the processes ended with code {code}: {why}; checkpoints are kept in {state}")


def command(strategy: Strategy, threads: int) -> list[str]:
    """The launcher's part of the command line, for a module that follows.

    Args:
        threads: of each process.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={strategy.processes}"]
    match strategy.launcher:
        case "torchrun":
            return [*torchrun, "--standalone", "-m"]
        case "deepspeed":
            options = [
                f"--num_gpus={strategy.processes}",
                f"--master_port={_free_port()}",
                "--no_local_rank",
                "--module",
            ]
            return [sys.executable, "-m", "deepspeed.launcher.runner", *options]
        case "srun":
            tasks = [f"--nodes={strategy.nodes}", f"--ntasks={strategy.nodes}", "--ntasks-per-node=1"]
            cores = f"--cpus-per-task={strategy.processes * threads}"
            meeting = f"{socket.gethostname()}:{_free_port()}"
            return [
                *("srun", *tasks, cores, "--kill-on-bad-exit=1"),
                *(*torchrun, f"--nnodes={strategy.nodes}"),
                *("--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}"),
                *(f"--rdzv-id={os.environ.get('SLURM_JOB_ID', 'calm')}", "-m"),
            ]
        case launcher:
            raise AssertionError(launcher)


def _wait(started: list[str], folder: Path, environment: Mapping[str, str]) -> int:
    try:
        process = subprocess.Popen(started, cwd=folder, env=environment, preexec_fn=_die_with_parent)
    except FileNotFoundError as error:
        raise TrainingError(f"{started[0]} is not here ({error}): see strategy.launcher and docs/cluster.md") from error
    with process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            raise


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """A launcher whose stage was killed must not go on, beside the one that is started next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGTERM)
