"""A photographer's folder: `calm score` over 2,000 photographs of 12 megapixels, killed half-way, and a second time.

    python -m benchmarks.folder FOLDER [--photographs 2000] [--bad 20] [--write]

FOLDER is made where it is not there: 40 of the demo's photographs, enlarged to 4000 x 3000 with a camera's grain, under
as many names as asked for, no two with the same bytes; the bad ones are cut off, empty or noise. Answers are remembered
in a cache of its own. Checked: every photograph has a row, every bad one is named once, exit code 1, nothing that was
answered before the kill is answered again, and the second run says the same. What is wanted of memory and of the
second run is checked last (a few photographs miss it: a command takes seconds to start). --write puts the table into
docs/benchmarks/folder.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from calm.data.obtain.ways import package_folder
from calm.data.sources.photos import FOLDERS, LIST

PAGE = Path("docs/benchmarks/folder.md")
MOST = 1.2  # GB, that any run may take at its peak
LEAST = 0.05  # of the first run's time, that the second stays below
ABOUT = """\
# A photographer's folder, killed half-way

Made by `python -m benchmarks.folder FOLDER --photographs {photographs} --bad {bad} --write`: {good} photographs of
12 megapixels and {bad} bad files, {size:.1f} GB, scored by `calm score --csv FOLDER` with the model that comes with
calm, on {cores} cores.
"""
READING = """
First run, both parts: {rate:.2f} photographs/s. Second over first: **{share:.1%}** (wanted: below {least:.0%}).
Highest peak: **{peak:.2f} GB** (wanted: {most} GB at most, whatever the number of photographs).

How to read it: "killed half-way" ends by SIGKILL once half of the rows are written; {answered} answers were kept by
then, and none of these was asked for again. Every photograph has its row, every bad file is named once, and the
exit code is 1. The second run starts, hashes every file and gives the answers that were kept; only bad files are
read again. Peaks are of the whole process.
"""
SIZE = (4000, 3000)
DIFFERENT = 40
GRAIN = 4.0  # grey levels of standard deviation, so that files are as large as a camera's
BAD: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: data[: len(data) // 2],
    lambda data: b"",
    lambda data: data[::-1],
)


def enlarged() -> Iterator[bytes]:
    """JPEGs of the demo's photographs as a camera would have made them."""
    with LIST.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(17)
    grain = rng.normal(0, GRAIN, (SIZE[1], SIZE[0], 1)).astype(np.float32)
    for row in rows[:: max(1, len(rows) // DIFFERENT)][:DIFFERENT]:
        package, folder = FOLDERS[row["package"]]
        where = package_folder(package)
        assert where is not None, f"{row['package']} is not installed"
        with Image.open(where / folder / row["file"]) as image, tempfile.SpooledTemporaryFile() as file:
            large = np.asarray(image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC), np.float32)
            Image.fromarray((large + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
            file.seek(0)
            yield file.read()


def make(folder: Path, photographs: int, bad: int) -> None:
    """Write IMG_0000.JPG, ...: each with a comment segment of its own; every so many-th is bad."""
    folder.mkdir(parents=True)
    originals = list(enlarged())
    for number in range(photographs):
        comment = f"number {number}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        data = originals[number % DIFFERENT]
        data = data[:2] + segment + data[2:]
        turn, rest = divmod(number * bad, photographs)
        if rest < bad:
            data = BAD[turn % len(BAD)](data)
        (folder / f"IMG_{number:04d}.JPG").write_bytes(data)


@dataclass(frozen=True)
class Run:
    """One run of the command."""

    seconds: float
    peak: float  # GB
    code: int
    rows: list[str]
    errors: list[str]


def score(folder: Path, cache: Path, stop_after: int | None = None) -> Run:
    """`calm score --csv`; killed once it has written so many rows."""
    command = [str(Path(sys.executable).with_name("calm")), "score", "--csv", str(folder)]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    rows: list[str] = []
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True) as process,
    ):
        assert process.stdout is not None
        for row in process.stdout:
            rows.append(row)
            if len(rows) - 1 == stop_after:  # the header is a row
                process.kill()
                break
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        told = [line for line in errors if line.startswith("error:")]
    seconds = time.perf_counter() - start
    return Run(seconds, usage.ru_maxrss * 1024 / 1e9, process.returncode, rows[1:], told)


def kept(cache: Path, before: float = float("inf")) -> int:
    """Answers in the cache that were put there before a time."""
    with closing(sqlite3.connect(cache / "calm/answers/cache.db")) as database:
        return int(database.execute("SELECT count(*) FROM Cache WHERE store_time < ?", (before,)).fetchone()[0])


def main() -> None:
    """Make the folder, run three times, check, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photographs", type=int, default=2000)
    parser.add_argument("--bad", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    if not chosen.folder.exists():
        make(chosen.folder, chosen.photographs, chosen.bad)
    good = chosen.photographs - chosen.bad
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name)
        killed = score(chosen.folder, cache, good // 2)
        answered, stopped = kept(cache), time.time()
        resumed = score(chosen.folder, cache)
        assert kept(cache, stopped) == answered >= len(killed.rows), "what was answered is answered again"
        second = score(chosen.folder, cache)
        single = score(next(chosen.folder.glob("*0001.JPG")), cache)
    assert resumed.rows == second.rows and len(second.rows) == good, f"{len(second.rows)} rows of {good}"
    for run in (resumed, second):
        assert run.code == 1 and len(run.errors) == len(set(run.errors)) == chosen.bad, run.errors
    first = killed.seconds + resumed.seconds
    runs = {"killed half-way": killed, "started again": resumed, "second time": second, "one photograph alone": single}
    lines = [f"| {title} | {run.seconds:.1f} | {run.peak:.2f} |" for title, run in runs.items()]
    table = "\n".join(["| run | s | peak, GB |", "| --- | --: | --: |", *lines])
    size = sum(path.stat().st_size for path in chosen.folder.iterdir()) / 1e9
    peak, share = max(run.peak for run in runs.values()), second.seconds / first
    facts = vars(chosen) | {"good": good, "answered": answered, "cores": os.cpu_count(), "size": size}
    limits = {"peak": peak, "most": MOST, "share": share, "least": LEAST, "rate": good / first}
    page = f"{ABOUT}\n{table}\n{READING}".format(**facts, **limits)
    print(page)
    if chosen.write:
        PAGE.write_text(page, encoding="utf-8")
    if peak > MOST or share >= LEAST:
        raise SystemExit(f"missed: a peak of {MOST} GB at most, or a second run below {LEAST:.0%} of the first")


if __name__ == "__main__":
    main()
