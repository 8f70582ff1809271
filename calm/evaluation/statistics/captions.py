"""BLEU, METEOR, ROUGE-L, CIDEr and SPICE with pycocoevalcap's figures, made safe to call and quicker.

Captions are normalised first (METEOR's protocol breaks on empty lines, control characters and its own separator) and
tokenised once for all figures. BLEU and CIDEr are pycocoevalcap's own; METEOR is its jar (`jars`); ROUGE-L is
written again, since the original fills a table of caption times reference words. No installed package is written to.

Two forms of every figure: the usual one (`corpus`), and `best`, the best over a photograph's references taken one at a
time, mean over photographs, which the authors of AVA-Captions print. docs/evaluation.md tells what that changes.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calm.evaluation.statistics.jars import meteor, ptb_tokenise
from calm.evaluation.statistics.metrics import Vector, weighted_mean

BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
EMPTY = "emptycaption"  # stands for a caption without words: matches no reference, and METEOR's line stays whole
MAX_WORDS = 200  # that METEOR reads: its search for an alignment of ten thousand words does not end


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
    cut = [[" ".join(text.split()[:MAX_WORDS]) for text in texts] for texts in ([*given], *expected)]
    told = meteor(cut[0], cut[1:], resamples)
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
    draws = {name: resampled[:, number] for number, name in enumerate(BLEU)} | {"meteor": told.draws}
    draws |= {name: weighted_mean(values, resamples) for name, values in per_photo.items() if name != "meteor"}
    return CaptionScores(
        corpus,
        {name: float(values.mean()) for name, values in best.items()},
        draws,
        {name: weighted_mean(values, resamples) for name, values in best.items()},
        per_photo,
    )


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyro 2004): ten thousand words a side in a moment."""
    places: dict[str, int] = {}
    for index, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << index
    full = (1 << len(first)) - 1
    state = full
    for token in second:
        matched = state & places.get(token, 0)
        state = ((state + matched) | (state - matched)) & full
    return len(first) - state.bit_count()


def rouge_l(candidate: str, references: Sequence[str], beta: float = 1.2) -> float:
    """Pycocoevalcap's ROUGE-L: best precision and best recall over the references, not of one reference."""
    words = candidate.split(" ")
    pairs = [(lcs_length(reference.split(" "), words), len(reference.split(" "))) for reference in references]
    precision = max(length / float(len(words)) for length, _ in pairs)
    recall = max(length / float(size) for length, size in pairs)
    if precision == 0 or recall == 0:
        return 0.0
    return ((1 + beta**2) * precision * recall) / float(recall + beta**2 * precision)


def cider_by_reference(
    given: Sequence[str], expected: Sequence[Sequence[str]], *, original: bool = False
) -> list[NDArray[np.float64]]:
    """CIDEr of each caption against each of its references: N arrays, whose means are pycocoevalcap's scores.

    What pycocoevalcap, and the tables of the literature, call CIDEr is CIDEr-D: counts are clipped and unequal lengths
    are penalised. `original` is the cosine of Vedantam et al. (2015), without either, on unstemmed words.
    """
    references = [[_ngrams(text) for text in texts] for texts in expected]
    frequency = Counter(ngram for texts in references for ngram in set().union(*texts))
    photographs = np.log(float(len(references)))

    def weighed(counts: Mapping[tuple[str, ...], int]) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(4)]
        for ngram, count in counts.items():
            rarity = photographs - np.log(max(1.0, frequency[ngram]))
            vectors[len(ngram) - 1][ngram] = count * rarity
        norms = [float(np.sqrt(sum(value**2 for value in vector.values()))) for vector in vectors]
        return vectors, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2)

    found = []
    for candidate, texts in zip(given, references, strict=True):
        vectors, norms, length = weighed(_ngrams(candidate))
        row = []
        for other, other_norms, other_length in map(weighed, texts):
            penalty = 1.0 if original else np.exp(-((length - other_length) ** 2) / (2 * 6.0**2))
            cosines = []
            for n in range(4):
                shared = ((value, other[n].get(ngram, 0.0)) for ngram, value in vectors[n].items())
                overlap = sum((a if original else min(a, b)) * b for a, b in shared)
                scale = norms[n] * other_norms[n]
                cosines.append((overlap / scale if scale else overlap) * penalty)
            row.append(10.0 * float(np.mean(cosines)))
        found.append(np.array(row))
    return found


def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = text.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1))


def best_bleu(given: Sequence[str], expected: Sequence[Sequence[str]]) -> list[Vector]:
    """BLEU-1..4 of each caption against the reference that is best for it, four arrays (N,)."""
    from pycocoevalcap.bleu.bleu import BleuScorer

    scorer, owner = BleuScorer(n=4), []
    for index, (candidate, texts) in enumerate(zip(given, expected, strict=True)):
        for text in texts:
            scorer += (candidate, [text])
            owner.append(index)
    _, per_pair = scorer.compute_score(option="closest")
    best = [np.full(len(given), -np.inf) for _ in BLEU]
    for values, of_pairs in zip(best, per_pair, strict=True):
        np.maximum.at(values, owner, np.asarray(of_pairs, dtype=np.float64))
    return best


def bleu_row(comps: Mapping[str, Any]) -> list[float]:
    """What BleuScorer has counted of one caption: length, closest reference's, n-grams guessed (4) and correct (4)."""
    length = comps["testlen"]
    closest = min(comps["reflen"], key=lambda other: (abs(other - length), other))
    return [length, closest, *comps["guess"], *comps["correct"]]


def bleu_from_counts(counts: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corpus BLEU-1..4 of each resample, (S, 4), by BleuScorer's own formula.

    Args:
        counts: (N, 10), a `bleu_row` for each photograph.
        weights: (S, N), how often each resample holds each one.
    """
    totals = weights @ counts
    length, reference, guess, correct = totals[:, 0], totals[:, 1], totals[:, 2:6], totals[:, 6:10]
    precision = np.cumsum(np.log((correct + 1e-15) / (guess + 1e-9)), axis=1) / np.arange(1, 5)
    ratio = (length + 1e-15) / (reference + 1e-9)
    penalty = np.minimum(0.0, 1 - 1 / ratio)
    result: NDArray[np.float64] = np.exp(precision + penalty[:, None])
    return result
