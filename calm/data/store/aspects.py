"""What a row of COMMENT is about, read from its aspect: a caption, an answer to a question, or a critique."""

from __future__ import annotations

import pandas as pd

CAPTION = "caption"
QUESTION = "qa:"  # then the question, as it was asked


def captions(comments: pd.DataFrame) -> pd.Series:
    """Which rows say what a photograph shows; only the column aspect is read."""
    return comments["aspect"] == CAPTION


def answers(comments: pd.DataFrame) -> pd.Series:
    """Which rows answer a question about a photograph."""
    return comments["aspect"].astype(object).fillna("").astype(str).str.startswith(QUESTION)


def critiques(comments: pd.DataFrame) -> pd.Series:
    """Which rows are comments on a photograph's aesthetics, as a whole or in one aspect."""
    return ~captions(comments) & ~answers(comments)
