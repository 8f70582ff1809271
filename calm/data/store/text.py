"""Cleaning of texts that people wrote: they are data, and stay readable."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 2000
_BLANK = re.compile(r"\s+")
# Openings of special tokens and chat markers of the language models that calm can load.
_MARKER = re.compile(r"<(?=[|/!<A-Za-z_])|\[(?=/?INST\])", re.IGNORECASE)


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
