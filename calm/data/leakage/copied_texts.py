"""Texts about test photographs that are found again under the id of another photograph."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

HUMAN = "human"


def copied_texts(texts: pd.DataFrame, train: pd.Index, test: pd.Index, words: int) -> pd.DataFrame:
    """Training items that have a text of a test item.

    Args:
        texts: columns item (a key of any kind), text_clean, origin.
        train, test: keys of items.
        words: short texts ("nice shot") are common property; a text of at least so many words is a copy.

    Returns:
        One row for each training item that has a copy, ordered by it: columns train, test (of several, the first in
        the order of `test`). Only what people wrote about the test photograph counts: a template says the same of many.
    """
    ours = texts.loc[texts["item"].isin(test) & (texts["origin"] == HUMAN), ["item", "text_clean"]]
    ours = ours.assign(key=normalised(ours["text_clean"], words).to_numpy()).dropna(subset=["key"])
    ours = ours.assign(place=test.get_indexer(pd.Index(ours["item"]))).sort_values("place").drop_duplicates("key")
    theirs = texts.loc[texts["item"].isin(train), ["item", "text_clean"]]
    theirs = theirs.assign(key=normalised(theirs["text_clean"], words).to_numpy())
    pairs = theirs.merge(ours, on="key", suffixes=("", "_test")).sort_values(["item", "place"])
    pairs = pairs.drop_duplicates("item", ignore_index=True)
    return pairs[["item", "item_test"]].rename(columns={"item": "train", "item_test": "test"})


def normalised(texts: pd.Series, words: int) -> pd.Series:
    """Texts in lower case, letters and digits alone, one blank between words; null where there are fewer words."""
    plain = pc.utf8_lower(pc.utf8_normalize(pa.array(texts, pa.large_string()), form="NFKC"))
    plain = pc.utf8_trim(pc.replace_substring_regex(plain, r"[^\pL\pN]+", " "), " ")
    enough = pc.and_(pc.greater_equal(pc.count_substring(plain, " "), words - 1), pc.not_equal(plain, ""))
    return pc.if_else(enough, plain, None).to_pandas()
