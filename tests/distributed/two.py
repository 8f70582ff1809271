"""What two processes do for the tests beside this file, started once by a launcher: scenarios, one after the other.

Each writes what it saw as OUT/NAME.json (rank 0), or OUT/NAME.txt with the reason why it did not run.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from calm.layout import Layout
from calm.training.loop import checkpoints
from calm.training.loop.engine import Run, TrainingError, train
from calm.training.loop.processes import Processes, join
from calm.training.settings import Strategy
from tests.distributed.net import STEPS, Killed, Net, run_in

KINDS = {
    "ddp": {"kind": "ddp"},
    "fsdp2": {"kind": "fsdp2"},
    "zero2": {"kind": "deepspeed", "zero": 2},
    "zero3": {"kind": "deepspeed", "zero": 3},
}
HANGS = 900.0  # seconds after which each process tells where it stands; all scenarios take some 80
# Kind, changes to the strategy, and the steps at which a run is killed: of ZeRO-2's, each step in one of four.
RESUMED: dict[str, tuple[str, dict[str, int], Sequence[int]]] = {
    "zero2": ("zero2", {}, range(0, STEPS, 4)),
    "zero2-accumulated": ("zero2", {"micro_batch": 2}, range(1, STEPS, 4)),
    "zero2-ahead": ("zero2", {"workers": 2}, range(2, STEPS, 4)),
    "zero2-accumulated-ahead": ("zero2", {"micro_batch": 2, "workers": 2}, range(3, STEPS, 4)),
    **{kind: (kind, {"micro_batch": 2}, (2, 11, 19)) for kind in ("ddp", "fsdp2", "zero3")},
}
STAGES = (("pretrain", "attributes"), ("pretrain", "alignment"), ("finetune", "comments"), ("finetune", "scores"))


def strategy(name: str, **changes: Any) -> dict[str, Any]:
    return {"launcher": "torchrun", "processes": 2} | KINDS[name] | changes


def last(run: Run, names: list[str]) -> dict[str, Any]:
    """Curve and hash of the weights that a run has left."""
    saved = checkpoints.newest(run.checkpoints, run.fingerprint, names, join())
    assert saved is not None
    weights = sorted(saved.tensors(checkpoints.WEIGHT).items())
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for _, value in weights)).hexdigest()
    return {"curve": saved.curve, "weights": digest, "folder": str(saved.folder)}


def small(out: Path, state: str, kind: str, stop: int | None = None, noise: float = 0.1, **changes: Any) -> Any:
    """Train the small network; None if it was killed on the way."""
    run = run_in(out / "states" / state, Strategy(**strategy(kind, **changes)))
    net = Net(stop, noise)
    names = list(net.parameters)
    try:
        assert train(net, run) is None
    except Killed:
        return None
    return last(run, names)


def resumed(out: Path, name: str) -> dict[str, Any]:
    """A run that nothing stops, and one that is killed again and again, and started again each time."""
    kind, changes, steps = RESUMED[name]
    for step in steps:
        assert small(out, name, kind, stop=step, **changes) is None
    return {
        "whole": small(out, f"{name}-whole", kind, **changes),
        "end": small(out, name, kind, **changes),
    }


def another_world(out: Path, kind: str) -> dict[str, Any]:
    """A run that two processes begin, for the test to go on with one; and one that they end, begun by one before."""
    assert small(out, f"{kind}-world", kind, stop=11, noise=0.0) is None
    if join().rank == 0:
        shutil.copytree(out / "states/alone", out / f"states/{kind}-alone")
    distributed.barrier()
    return {
        "whole": small(out, f"{kind}-reference", kind, noise=0.0),
        "grown": small(out, f"{kind}-alone", kind, noise=0.0),
        "state": str(out / "states" / f"{kind}-world"),
    }


def full_disk(out: Path) -> dict[str, Any]:
    """The second process cannot write its share of a later checkpoint."""
    original = checkpoints.save_file
    run = run_in(out / "states" / "full", Strategy(**strategy("ddp")))

    def save_file(tensors: Any, file: Path) -> None:
        if "step-00000006" in str(file) and join().rank == 1:
            raise OSError(28, "No space left on device")
        original(tensors, file)

    checkpoints.save_file = save_file
    try:
        train(Net(), run)
    except TrainingError as error:
        return {"said": str(error), "left": sorted(path.name for path in run.checkpoints.iterdir())}
    finally:
        checkpoints.save_file = original
    raise AssertionError("it went on")


def no_number(out: Path, kind: str) -> dict[str, Any]:
    """A loss that is none, on one process only."""
    run = run_in(out / "states" / f"nan-{kind}", Strategy(**strategy(kind)))
    net = Net()
    original = net.losses

    def losses(step: int, part: Any, read: Any) -> Any:
        found = original(step, part, read)
        return {name: value * float("nan") for name, value in found.items()} if (step, part.number) == (7, 1) else found

    net.losses = losses  # type: ignore[method-assign]
    try:
        train(net, run)
    except TrainingError as error:
        return {"said": str(error), "left": sorted(path.name for path in run.checkpoints.iterdir())}
    raise AssertionError("it went on")


def damaged(out: Path) -> dict[str, Any]:
    """The newest checkpoint of two processes loses the file of the second."""
    assert small(out, "damaged", "ddp", stop=10) is None
    run = run_in(out / "states" / "damaged", Strategy(**strategy("ddp")))
    folder = sorted(run.checkpoints.glob("step-*"))[-1]
    distributed.barrier()
    if join().rank == 0:
        (folder / "tensors-00002-of-00002.safetensors").unlink()
    distributed.barrier()
    return {"end": small(out, "damaged", "ddp"), "whole": small(out, "undamaged", "ddp"), "lost": folder.name}


@contextlib.contextmanager
def watched(*modules: Any) -> Iterator[list[Any]]:
    """What runs of these stages leave meanwhile."""
    seen: list[Any] = []

    def spy(objective: Any, run: Run) -> Any:
        names = list(objective.parameters)
        assert train(objective, run) is None
        seen.append(last(run, names))

    for module in modules:
        module.train = spy
    try:
        yield seen
    finally:
        for module in modules:
            module.train = train


def all_stages(
    root: Path, parts: dict[str, str], kind: str, stages: tuple[tuple[str, str], ...] = STAGES, **changes: Any
) -> dict[str, Any]:
    """The training stages of the tiny profile, each from what one process has trained before it."""
    from calm.training import finetune, pretrain  # seconds, which the small network does not need
    from tests import tiny

    curves = {}
    layout = Layout(root)
    settings = {key: changes.pop(key) for key in list(changes) if "__" in key}
    params = tiny.params(tiny.Parts(**parts), strategy=strategy(kind, **changes), **settings)
    for section, run in stages:
        with watched(pretrain, finetune) as seen:
            {"pretrain": pretrain.pretrain, "finetune": finetune.finetune}[section](run, params, layout)
        curves[f"{section}-{run}"] = seen[0]["curve"]
        distributed.barrier()
        if join().rank == 0:
            shutil.rmtree(layout.state(f"{section}-{run}"))
        distributed.barrier()
    return curves


def scenarios(out: Path, root: Path, parts: dict[str, str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    for name in RESUMED:
        yield f"resume-{name}", lambda name=name: resumed(out, name)
    for kind in KINDS:
        yield f"world-{kind}", lambda kind=kind: another_world(out, kind)
        yield f"nan-{kind}", lambda kind=kind: no_number(out, kind)
        rounds = {"micro_batch": 1} if kind == "ddp" else {}
        yield f"stages-{kind}", lambda kind=kind, rounds=rounds: all_stages(root, parts, kind, **rounds)
    yield (
        "stages-zero3-checkpointing",
        lambda: all_stages(
            root,
            parts,
            "zero3",
            (STAGES[2],),
            gradient_checkpointing=True,
            runtime__dtype="bfloat16",
            runtime__keep_features=False,
        ),
    )
    yield "disk", lambda: full_disk(out)
    yield "damaged", lambda: damaged(out)


def main(out: Path, root: Path, parts: dict[str, str]) -> None:
    faulthandler.dump_traceback_later(HANGS, exit=True)
    torch.set_num_threads(1)
    processes: Processes = join()
    for name, scenario in scenarios(out, root, parts):
        if "zero" in name and importlib.util.find_spec("deepspeed") is None:
            seen, ending = "DeepSpeed is not installed: make apart", "txt"
        else:
            try:
                seen, ending = json.dumps(scenario()), "json"
            except BaseException:
                traceback.print_exc()
                (out / f"{name}.failed-{processes.rank}.txt").write_text(traceback.format_exc())
                os._exit(1)
        if processes.rank == 0:
            (out / f"{name}.{ending}").write_text(seen)
    distributed.destroy_process_group()


if __name__ == "__main__":
    folder, checkout, described = sys.argv[1:]
    main(Path(folder), Path(checkout), json.loads(described))
