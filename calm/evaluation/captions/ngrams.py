"""Figures of n-grams and subsequences: BLEU, ROUGE-L and CIDEr of tokenised captions, one reference at a time too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calm.evaluation.statistics.metrics import Vector

BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")


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
