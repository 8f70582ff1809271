"""Photographs, ratings and comments: sources, schemas, shards, splits, leakage filter.

Here is what can be wrong with a dataset's files: the user's business, told in one message each.
"""

from __future__ import annotations


class SourceError(ValueError):
    """Files of a dataset that are missing or not as they must be; the message names them and what to do."""


class ArchiveError(SourceError):
    """An archive that is damaged."""


class DownloadError(SourceError):
    """A download that failed or brought something else than what was expected."""
