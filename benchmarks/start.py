"""How long a person waits for the first score: `calm score PHOTOGRAPH` as a cold command, beside torch's import.

    python benchmarks/start.py PHOTOGRAPH [--runs 5]

Each run is a process of its own, the two kinds in turn; the least of the runs counts, for others are slowed by whoever
else computes. The score is the same in every run, which is checked first.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

IMPORTS = [sys.executable, "-c", "import torch, transformers"]


def seconds(command: list[str]) -> tuple[float, str]:
    """Wall-clock seconds of a command that succeeds, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def main() -> None:
    """Time both and print their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    score = [str(Path(sys.executable).with_name("calm")), "score", "--no-cache", "--json", arguments.photograph]
    print(seconds(score)[1])  # once without being timed: files are in memory from now on
    runs = [(seconds(score), seconds(IMPORTS)) for _ in range(arguments.runs)]
    assert len({said for (_, said), _ in runs}) == 1, "the score differs between runs"
    ours, theirs = (min(times) for times in zip(*((one[0], other[0]) for one, other in runs), strict=True))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    print(f"calm score: {ours:.2f} s; import torch, transformers: {theirs:.2f} s; ratio {ours / theirs:.2f}")
    print(f"peak memory of the largest process: {peak:.2f} GB")


if __name__ == "__main__":
    main()
