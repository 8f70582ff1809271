"""Rows of figures, each guarded and each written as soon as it is known; a row that cannot be had says why."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from calm.io import write_json
from calm.training.loop.throughput import GIB, GPU, machines

CARD, REHEARSAL = "card", "rehearsal"
NO_GPU, NO_TIME = "not run: no GPU here", "not run: no time left"
MEASURED = "measured"
DIED = "failed: its process ended"
PRODUCT = 8192  # side of the matrices whose product is the speed that the card really has
PRODUCTS = 10


@dataclass(frozen=True)
class Check:
    """Something that has to hold: what was found, and the least or the most that is allowed."""

    what: str
    found: float
    limit: float
    least: bool = False

    @property
    def holds(self) -> bool:
        """Whether it does; what is no number does not."""
        return self.found >= self.limit if self.least else self.found <= self.limit


@dataclass(frozen=True)
class Found:
    """What a row has measured."""

    values: dict[str, Any]
    checks: list[Check] = field(default_factory=list)


class NotRunError(Exception):
    """A row that cannot be had here; the message says why."""


class Report:
    """The JSON file: what it was measured on, and a row for everything that was asked for."""

    def __init__(self, path: Path, about: dict[str, Any] | None = None) -> None:
        self.path = path
        if about is None:  # of the process that started this one
            content = json.loads(path.read_text(encoding="utf-8"))
            self.about, self.rows = content["about"], content["rows"]
        else:
            self.about, self.rows = about, []
            self.write()

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, in place of an earlier one of its name."""
        same = [old for old in self.rows if all(old[key] == row[key] for key in ("where", "section", "name"))]
        for old in same:
            self.rows.remove(old)
        self.rows.append(row)
        self.write()

    @property
    def problems(self) -> list[str]:
        """Rows that failed, and checks that do not hold."""
        failed = [f"{row['name']}: {row['status']}" for row in self.rows if row["status"].startswith("failed")]
        wrong = [
            f"{row['name']}: {check['what']}: {check['found']:.4g}, limit {check['limit']:.4g}"
            for row in self.rows
            for check in row["checks"]
            if not check["holds"]
        ]
        return failed + wrong

    def write(self) -> None:
        write_json(self.path, {"about": self.about, "rows": self.rows})


@dataclass(frozen=True)
class Bench:
    """Where rows are measured.

    Attributes:
        where: CARD, or REHEARSAL for the same code with tiny shapes on a processor.
        device: None: nothing is measured, rows hold what was planned.
        gpu: its peaks, or of the one that is planned for.
        deadline: of `time.monotonic`.
    """

    report: Report
    where: str
    device: torch.device | None
    gpu: GPU
    deadline: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    @property
    def on_card(self) -> bool:
        """Whether there is a GPU."""
        return self.device is not None and self.device.type == "cuda"

    def row(
        self,
        section: str,
        name: str,
        measure: Callable[[], Found],
        planned: dict[str, Any] | None = None,
        need: float = 0,
    ) -> dict[str, Any]:
        """Measure one row and keep it, whatever happens.

        Args:
            planned: figures that it stands beside.
            need: seconds that it takes, about.
        """
        status, found, started = NO_GPU, Found({}), time.monotonic()
        place = {"where": self.where, "section": section, "name": name}
        planned = planned or {}
        if self.device is not None:
            print(f"{self.where}, {section}: {name} ... ({self.left:.0f} s left)", file=sys.stderr, flush=True)
            self.report.add({**place, "status": DIED, "planned": planned, "values": {}, "checks": []})
            status = NO_TIME
            if self.left > need:
                status, found = self._guarded(measure)
        row = {
            **place,
            "status": status,
            "took_s": round(time.monotonic() - started, 1) if status == MEASURED else None,
            "planned": planned,
            "values": found.values,
            "checks": [asdict(check) | {"holds": check.holds} for check in found.checks],
        }
        self.report.add(row)
        self.clear()
        return row

    def _guarded(self, measure: Callable[[], Found]) -> tuple[str, Found]:
        try:
            return MEASURED, measure()
        except NotRunError as error:
            return f"not run: {error}", Found({})
        except torch.OutOfMemoryError as error:
            return f"not run: out of memory ({first_line(error)})", Found({})
        except Exception as error:  # the row says it, and the next one has its turn
            traceback.print_exc()
            return f"failed: {type(error).__name__}: {first_line(error)}", Found({})

    def clear(self) -> None:
        """Give memory back that nothing refers to any more."""
        gc.collect()
        if self.on_card:
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Until the card has done what it was given."""
        if self.on_card:
            torch.cuda.synchronize()


def first_line(error: Exception) -> str:
    """Of what an error says, or its kind."""
    return next((line.strip()[:160] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def about(device: torch.device | None) -> dict[str, Any]:
    """What was measured, and on what."""
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "gpu": None,
    }
    if device is not None and device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "memory_gib": round(properties.total_memory / GIB, 1),
            "cuda": torch.version.cuda,
            "product_tflops": round(product_rate(device) / 1e12, 1),
        }
    return found


def gpu_of(device: torch.device | None) -> tuple[str, GPU]:
    """Peaks of this card by its data sheet, else by a product; without a card, of the one that plans are for."""
    table = machines()
    default = table.gpu(table.default_gpu)
    if device is None or device.type != "cuda":
        return table.default_gpu, default
    name = torch.cuda.get_device_name(device)
    known = table.of_device(name)
    if known is None:
        memory = torch.cuda.get_device_properties(device).total_memory / GIB
        known = default.model_copy(update={"tflops": product_rate(device) / 1e12, "memory_gib": memory})
    return name, known


@torch.no_grad()
def product_rate(device: torch.device) -> float:
    """FLOPs a second of a large product in bfloat16: what is left of the data sheet's peak on this card."""
    left, right = (torch.randn(PRODUCT, PRODUCT, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(PRODUCTS):
        left @ right
    torch.cuda.synchronize()
    return PRODUCTS * 2 * PRODUCT**3 / (time.perf_counter() - started)


def _commit() -> str | None:
    try:
        said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    except OSError:
        return None
    return said.stdout.strip() or None
