"""Captions and comments composed from a photograph's theme and mean ratings: synthetic, and called so in `origin`.

For datasets that have ratings of beauty, valence and arousal but no words. A comment says how the photograph compares
with the rest of its set in these three and what its theme is, and nothing else: light or composition, which nobody
rated, are not spoken of. The same seed and names give the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from ruamel.yaml import YAML

Measure = Literal["beauty", "valence", "arousal"]

_WORDS: dict[str, Any] = YAML(typ="safe").load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
# By measure, from the lowest band of the set to the highest.
CLAUSES: Mapping[Measure, Sequence[Sequence[str]]] = _WORDS["clauses"]
_NUMBER = re.compile(r"\s*\d+\s*$")


def theme_name(theme: str) -> str:
    """A theme without its number: "Acorns 1" -> "Acorns", also where written "Acorns1"."""
    return " ".join(_NUMBER.sub("", theme).split())


def subject(theme: str) -> str:
    """A theme as a noun phrase with its article: "Bar 2" -> "a bar", "Acorns 1" -> "acorns"."""
    words = theme_name(theme).lower()
    if words in _WORDS["special"]:
        return _WORDS["special"][words]
    last = words.split(" ")[-1]
    plural = last.endswith("s") and not last.endswith("ss")
    doing = last.endswith("ing") and last not in _WORDS["counted_ing"]
    if plural or doing or last in _WORDS["uncounted"]:
        return words
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def captions(theme: str, category: str) -> list[str]:
    """What a photograph shows, from its theme and the category of its set: "Acorns, category object."."""
    shown = subject(theme)
    return [f"A photograph of {shown}.", f"{shown[0].upper()}{shown[1:]}, category {category.lower()}."]


def bands(values: pd.Series, count: int) -> NDArray[np.int64]:
    """Which of `count` equal parts of the set each value falls in, 0 the lowest; equal values share a part.

    The set is all of `values`, so bands are relative to it and do not depend on the order of its rows.
    """
    rank = values.rank(method="average", pct=True).to_numpy() - 0.5 / len(values)
    return np.clip(np.floor(rank * count), 0, count - 1).astype(np.int64)


def all_bands(means: pd.DataFrame) -> dict[str, dict[Measure, int]]:
    """The band of every item in every measure; `means` has columns item_id, beauty, valence, arousal."""
    found = {measure: bands(means[measure], len(words)) for measure, words in CLAUSES.items()}
    return {
        item_id: {measure: int(found[measure][row]) for measure in CLAUSES}
        for row, item_id in enumerate(means["item_id"])
    }


def comments(shown: str, band: Mapping[Measure, int], count: int, rng: np.random.Generator) -> list[str]:
    """Comments on one photograph, one to three sentences each; those that follow one another open differently.

    Args:
        shown: the subject with its article.
        band: per measure, as `all_bands` gives.
    """
    openers = [_WORDS["openers"][int(index)] for index in rng.permutation(len(_WORDS["openers"]))]
    return [_comment(openers[number % len(openers)], shown, band, rng) for number in range(count)]


def _comment(opener: str, shown: str, band: Mapping[Measure, int], rng: np.random.Generator) -> str:
    """Beauty with the subject, then of mood and how much it stirs none, one or both."""
    clause = {measure: _pick(CLAUSES[measure][level], rng) for measure, level in band.items()}
    opening = opener.format(kind=_pick(_WORDS["kinds"], rng), subject=shown, beauty=clause["beauty"])
    rest = [clause["valence"], clause["arousal"]]
    chosen = [rest[int(index)] for index in rng.permutation(2)[: int(rng.integers(3))]]
    if not chosen:
        return f"{opening}."
    if len(chosen) == 1:
        return f"{opening}. {_sentence(chosen[0])}."
    first, second = chosen
    closing = _pick(_WORDS["closings"], rng)
    return f"{opening}. {closing.format(first=first, second=second, First=_sentence(first), Second=_sentence(second))}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
