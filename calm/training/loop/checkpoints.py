"""Checkpoints that any number of processes writes and any other number reads.

A checkpoint is a folder: the trained weights and Adam's moments, whole tensors by name, in one safetensors file for
each process that wrote it, and `run.json`, which is written last and holds the hash of each of them. It takes its final
name by a rename once all is on disk, so a checkpoint is whole or absent; what storage does to it later, hashes tell.
Nothing in it depends on who held which part of a tensor.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from calm.io import sha256_file, write_json
from calm.training.loop.processes import Processes, TrainingError

KEPT = 2  # checkpoints: the last one, and one more should that be damaged
RECORD = "run.json"
WEIGHT = "weight"
DAMAGE = (OSError, ValueError, KeyError, TypeError, SafetensorError)


@dataclass(frozen=True)
class Saved:
    """A checkpoint on disk that is whole.

    Attributes:
        curve: a row for each step so far.
        strategy: the params section that it was trained with.
        files: of its tensors.
    """

    folder: Path
    curve: list[dict[str, float]]
    strategy: dict[str, Any]
    files: tuple[str, ...]

    def tensors(self, kind: str) -> dict[str, torch.Tensor]:
        """Tensors of one kind ("weight", or a key of Adam's state) by the parameter's name."""
        found = {}
        for file in self.files:
            with safe_open(self.folder / file, "pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - not a mapping
                    of, _, name = key.partition("/")
                    if of == kind:
                        found[name] = opened.get_tensor(key)
        return found


def save(
    root: Path,
    fingerprint: str,
    curve: list[dict[str, float]],
    strategy: dict[str, Any],
    tensors: Iterable[tuple[str, torch.Tensor]],
    processes: Processes,
) -> None:
    """Write `root/step-N` after N steps, by all processes together; older checkpoints than the one before go.

    Args:
        tensors: (kind/name, whole tensor), the same on every process; each process keeps its share of them.

    Raises:
        TrainingError: something could not be written; earlier checkpoints are untouched.
    """
    target = root / f"step-{len(curve):08d}"
    part = root / f".{target.name}.part"
    file = part / f"tensors-{processes.rank + 1:05d}-of-{processes.world:05d}.safetensors"
    own: dict[str, torch.Tensor] = {}
    for number, (key, tensor) in enumerate(tensors):
        if number % processes.world == processes.rank:
            own[key] = tensor.detach().cpu().contiguous()
    try:
        processes.first(lambda: _clear(root, part))
        hashes = dict(processes.agree(lambda: _write(file, own)))
        record = {"fingerprint": fingerprint, "curve": curve, "strategy": strategy, "files": hashes}
        processes.first(lambda: _finish(root, part, target, record))
    except (OSError, SafetensorError, TrainingError) as error:
        if processes.rank == 0:
            shutil.rmtree(part, ignore_errors=True)
        raise TrainingError(f"could not write {target}: {error}; {_kept(root)}") from error


def newest(root: Path, fingerprint: str, names: Collection[str], processes: Processes) -> Saved | None:
    """The newest whole checkpoint of this very run; others are passed by, loudly. None if there is none."""

    def find() -> Saved | None:
        for folder in sorted(root.glob("step-*"), reverse=True):
            try:
                return _read(folder, fingerprint, names)
            except DAMAGE as error:
                message = f"{folder}: damaged checkpoint ({error}), trying the one before"
                Console(stderr=True, soft_wrap=True).print(message, style="yellow", markup=False)
        return None

    return processes.first(find)


def _clear(root: Path, part: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(".step-*.part"):  # by a process that was killed while it wrote
        shutil.rmtree(left)
    part.mkdir()


def _write(file: Path, tensors: dict[str, torch.Tensor]) -> tuple[str, str]:
    save_file(tensors, file)
    _flush(file)
    return file.name, sha256_file(file)


def _finish(root: Path, part: Path, target: Path, record: dict[str, Any]) -> None:
    write_json(part / RECORD, record)
    if target.exists():  # damaged, or it would have been resumed from
        shutil.rmtree(target)
    part.rename(target)
    _flush(root)
    for old in sorted(root.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def _flush(path: Path) -> None:
    """Have the system put a file, or a folder's names, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _kept(root: Path) -> str:
    there = sorted(root.glob("step-*"))
    return f"{there[-1]} is kept: start the stage again to go on from there" if there else "there is none before it"


def _read(folder: Path, fingerprint: str, names: Collection[str]) -> Saved:
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if record["fingerprint"] != fingerprint:
        raise ValueError("of another run")
    for file, expected in record["files"].items():
        if sha256_file(folder / file) != expected:
            raise ValueError(f"{file} is not what was written")
    saved = Saved(folder, list(record["curve"]), dict(record["strategy"]), tuple(record["files"]))
    if saved.tensors(WEIGHT).keys() != set(names):
        raise ValueError("of other parameters")
    if folder.name != f"step-{len(saved.curve):08d}":
        raise ValueError(f"it holds {len(saved.curve)} steps")
    return saved
