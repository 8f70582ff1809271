"""A second opinion on a filtered training set, by another way than the filter's: sets, and all hashes with all.

Looks are compared for a sample of the items, evenly spread; everything else for all of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calm.data.leakage.near_duplicates import Looks, Positions
from calm.data.settings import LeakageParams
from calm.data.store.fingerprints import correlation
from calm.data.store.text import HUMAN

if TYPE_CHECKING:
    from calm.data.leakage.stage import Corpus

SAMPLE = 512
_WORD = re.compile(r"[^\W_]+")


def leaking(corpus: Corpus, train: Positions, rules: LeakageParams) -> tuple[int, list[int]]:
    """How many looks were compared, and the positions of items that should not be in `train`."""
    test = np.flatnonzero(corpus.held_out)
    items = corpus.items
    found: set[int] = set()
    for keys in (items["photograph"], items["sha256"], list(zip(items["dataset"], items["group"], strict=True))):
        found.update(_shared(list(keys), train, test))
    found.update(_repeating(corpus.texts, train, test, rules.caption_words))
    showing = corpus.looks.showing(train)
    sample = showing[np.unique(np.linspace(0, len(showing) - 1, min(SAMPLE, len(showing))).round().astype(int))]
    found.update(_looking_alike(corpus.looks, sample, corpus.looks.showing(test), rules))
    return len(sample), sorted(found)


def _shared(keys: list[Hashable], train: Positions, test: Positions) -> Iterator[int]:
    held_out = {keys[item] for item in test.tolist()}
    return (item for item in train.tolist() if keys[item] in held_out)


def _repeating(texts: pd.DataFrame, train: Positions, test: Positions, least: int) -> Iterator[int]:
    """Items with a text of at least so many words that a person wrote about a test item."""
    held_out, ours = set(test.tolist()), set(train.tolist())
    human = texts[texts["origin"] == HUMAN]
    said = {key for item, key in _keys(human, least) if item in held_out}
    return (item for item, key in _keys(texts, least) if item in ours and key in said)


def _keys(texts: pd.DataFrame, least: int) -> Iterator[tuple[int, str]]:
    """Item, and its text as runs of letters and digits in lower case, where there are enough."""
    for item, text in zip(texts["item"].tolist(), texts["text_clean"], strict=True):
        words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
        if len(words) >= least:
            yield item, " ".join(words)


def _looking_alike(looks: Looks, train: Positions, test: Positions, rules: LeakageParams) -> Iterator[int]:
    """Items that look like any test item, by comparing all their hashes with all of theirs."""
    parts = looks.parts(test)
    for item in train.tolist():
        for mirrored in (0, 1):
            place, box = np.nonzero(np.bitwise_count(parts ^ looks.whole[item, mirrored]) <= rules.phash_distance)
            again, crop = np.nonzero(
                np.bitwise_count(looks.whole[test, mirrored][:, None] ^ looks.crops[item]) <= rules.phash_distance
            )
            ours, theirs = np.full(len(place), item), np.full(len(again), item)
            whole, part = np.append(test[place], theirs), np.append(ours, test[again])
            fit = correlation(
                looks.thumbnails[whole],
                np.append(box, crop + 1),
                looks.thumbnails[part],
                np.full(len(whole), bool(mirrored)),
            )
            if (fit >= rules.correlation).any():
                yield item
