"""Whose scores are learnt: each dataset's raters are a public with a taste of its own, and some are small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

PERCENTILES = range(0, 101, 5)


def learnt_publics(rows: pd.DataFrame, order: Sequence[str]) -> list[dict[str, Any]]:
    """`CalmConfig.publics` of training rows (INSTRUCTION) of these datasets, in this order."""
    given = rows[rows["score"].notna() & rows["spoilt"].isna()]
    return [
        {
            "name": name,
            "origin": ", ".join(sorted(own["origin"].unique())),
            "steps": np.percentile(own["score"], PERCENTILES).round(3).tolist(),
        }
        for name in order
        if len(own := given[given["dataset"] == name])
    ]


def balanced(rows: pd.DataFrame, balance: float) -> pd.DataFrame:
    """Training rows (INSTRUCTION), the scores of smaller publics repeated so that they are seen more often.

    Args:
        balance: a public of n photographs is seen as often as n to this power says, to a whole number of times: 1 as
            the rows are, 0 each public alike (the temperature by which multilingual models draw their languages).
    """
    scored = rows["score"].notna()
    counts = rows.loc[scored, "dataset"].value_counts()
    times = ((counts.max() / counts) ** (1 - balance)).round().astype(int) if len(counts) else counts
    repeats = rows["dataset"].map(times).where(scored, 1).astype(int)
    return rows.loc[rows.index.repeat(repeats)].reset_index(drop=True)
