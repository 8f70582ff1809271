"""What can go wrong while texts are written."""

from __future__ import annotations


class WritingError(ValueError):
    """Texts could not be had; the message says why and what to do. Answers that were paid for are in the ledger."""
