"""METEOR 1.5 by pycocoevalcap's jar, in several processes at once, with exactly the figures of one.

The jar turns a caption and its references into a line of counts, which hangs on that caption alone, and a list of such
lines into scores. So the lines are made by as many processes as there are, and one of them scores all of them: it reads
what a single process would have read. Counts add up, which gives intervals without counting again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

JAR = "meteor-1.5.jar"
WINDOW = 64  # captions written before answers are read: far below what a pipe holds of answers
LEAST = 8000  # captions that are worth a process of their own: loading its paraphrases takes 8 s of processor time


class MeteorError(RuntimeError):
    """The jar did not answer as its protocol says; the message holds what it said."""


@dataclass(frozen=True)
class Meteor:
    """Scores of N captions: of the whole set, of each caption, and the counts (N, C) that they are made of."""

    score: float
    per_photo: NDArray[np.float64]
    counts: NDArray[np.float64]


def meteor(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    java: Path,
    processes: int,
    weights: NDArray | None = None,
) -> tuple[Meteor, NDArray[np.float64]]:
    """Score tokenised captions.

    Args:
        captions: N texts without line breaks or the jar's separator |||.
        references: N lists of texts like that.
        java: the program.
        processes: at most so many at once; fewer for few captions.
        weights: (S, N), how often each of S resamples holds each caption.

    Returns:
        The scores, and those of the resamples (S,).

    Raises:
        MeteorError: the jar stopped or answered something else.
    """
    lines = [_line(caption, texts) for caption, texts in zip(captions, references, strict=True)]
    count = max(1, min(processes, len(lines) // LEAST))
    with ExitStack() as stack:
        jars = [stack.enter_context(_started(java)) for _ in range(count)]
        shares = [range(first, len(lines), count) for first in range(count)]
        with ThreadPoolExecutor(count) as pool:
            found = pool.map(lambda job: job[0].ask([lines[i] for i in job[1]]), zip(jars, shares, strict=True))
        answers = [""] * len(lines)
        for share, told in zip(shares, found, strict=True):
            for index, answer in zip(share, told, strict=True):
                answers[index] = answer
        *per_photo, score = jars[0].evaluate(answers)
        counts = np.array([[float(number) for number in answer.split()] for answer in answers])
        drawn = [] if weights is None else weights @ counts
        draws = [jars[0].evaluate([" ".join(map(repr, map(float, row)))])[-1] for row in drawn]
    return Meteor(score, np.array(per_photo), counts), np.array(draws)


def _line(caption: str, references: Sequence[str]) -> str:
    """As pycocoevalcap writes it."""
    return " ||| ".join(("SCORE", " ||| ".join(references), caption.replace("|||", "").replace("  ", " ")))


@dataclass(frozen=True)
class _Jar:
    """One running jar."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    said: IO[bytes]

    def ask(self, lines: Sequence[str]) -> list[str]:
        """An answer for each line."""
        answers: list[str] = []
        for start in range(0, len(lines), WINDOW):
            window = lines[start : start + WINDOW]
            self._write("".join(f"{line}\n" for line in window))
            answers += [self._read() for _ in window]
        return answers

    def evaluate(self, answers: Sequence[str]) -> list[float]:
        """A score for each line of counts, and that of all together."""
        self._write(" ||| ".join(("EVAL", *answers)) + "\n")
        return [float(self._read()) for _ in range(len(answers) + 1)]

    def _write(self, text: str) -> None:
        try:
            self.stdin.write(text.encode("utf-8"))
            self.stdin.flush()
        except BrokenPipeError:
            raise MeteorError(f"METEOR stopped while it was asked: {self._complaint()}") from None

    def _read(self) -> str:
        line = self.stdout.readline().decode("utf-8")
        if not line.endswith("\n"):
            raise MeteorError(f"METEOR stopped, after {line!r}: {self._complaint()}")
        return line.strip()

    def _complaint(self) -> str:
        self.said.seek(0)
        return self.said.read().decode("utf-8", "replace").strip()[-1000:] or "it did not say why"


@contextmanager
def _started(java: Path) -> Iterator[_Jar]:
    """The jar with pycocoevalcap's flags; ended with the block, whatever happens in it."""
    spec = find_spec("pycocoevalcap.meteor.meteor")
    assert spec is not None and spec.origin is not None
    with TemporaryDirectory() as folder, TemporaryFile() as said:
        place = Path(spec.origin).parent
        if quote(str(place)) != str(place):  # in a folder with a space in its name, the jar does not find its tables
            place = shutil.copytree(place, Path(folder, "meteor"))
        command = [str(java), "-jar", "-Xmx2G", JAR, "-", "-", "-stdio", "-l", "en", "-norm"]
        with Popen(command, cwd=place, stdin=PIPE, stdout=PIPE, stderr=said) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                yield _Jar(process.stdin, process.stdout, said)
            finally:
                process.kill()
                with suppress(BrokenPipeError):
                    process.stdin.close()
