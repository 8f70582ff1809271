"""Who writes the guidance texts and the ways of asking: a language model behind an API, or the offline grammar."""

from __future__ import annotations


class WritingError(ValueError):
    """Texts could not be had; the message says why and what to do. Answers that were paid for are in the ledger."""
