"""Texts that people wrote: they are data, cleaned so that they stay readable; and what they are about.

A row of COMMENT says by its aspect whether it is a caption, an answer to a question, or a critique.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

HUMAN = "human"  # origin of what a person wrote
MAX_CHARACTERS = 2000
_BLANK = re.compile(r"\s+")
# Openings of special tokens and chat markers of the language models that calm can load.
_MARKER = re.compile(r"<(?=[|/!<A-Za-z_])|\[(?=/?INST\])", re.IGNORECASE)
CAPTION = "caption"
QUESTION = "qa:"  # then the question, as it was asked


def clean(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """Composed Unicode (NFC), control and format characters out, blanks to one, cut at a word's end."""
    composed = unicodedata.normalize("NFC", text)
    printable = "".join(" " if unicodedata.category(c) in {"Cc", "Zl", "Zp"} else c for c in composed)
    printable = "".join(c for c in printable if unicodedata.category(c) not in {"Cf", "Cs", "Co", "Cn"})
    joined = _BLANK.sub(" ", printable).strip()
    if len(joined) <= max_characters:
        return joined
    head = joined[: max_characters + 1]
    return (head[: head.rfind(" ")] if " " in head else head[:max_characters]).rstrip()


def escape_markers(text: str) -> str:
    """Replace what could open a special token (`<|...|>`, `<image>`, `</s>`, `[INST]`) by a look-alike quote."""
    return _MARKER.sub("‹", text)


def captions(comments: pd.DataFrame) -> pd.Series:
    """Which rows say what a photograph shows; only the column aspect is read."""
    return comments["aspect"] == CAPTION


def answers(comments: pd.DataFrame) -> pd.Series:
    """Which rows answer a question about a photograph."""
    return comments["aspect"].astype(object).fillna("").astype(str).str.startswith(QUESTION)


def critiques(comments: pd.DataFrame) -> pd.Series:
    """Which rows are comments on a photograph's aesthetics, as a whole or in one aspect."""
    return ~captions(comments) & ~answers(comments)
