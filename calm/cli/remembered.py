"""Answers given before, by what the photograph holds: a folder looked at twice, or a run that was stopped, goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

import calm

ROOM = 2**28  # bytes of all answers; the oldest go first


class Remembered:
    """Rows of one question put to one model.

    Args:
        question: what decides the answer beside the photograph; None remembers nothing.
    """

    def __init__(self, question: Mapping[str, Any] | None) -> None:
        self._cache: Any = None
        code = max(path.stat().st_mtime_ns for path in Path(calm.__file__).parent.rglob("*.py"))  # that answers
        self._question = json.dumps([question, code], sort_keys=True)
        if question is not None:
            from diskcache import Cache, JSONDisk
            from platformdirs import user_cache_dir

            folder = Path(user_cache_dir("calm")) / "answers"
            try:
                self._cache = Cache(str(folder), disk=JSONDisk, size_limit=ROOM)
            except Exception as error:  # sqlite's, or the system's
                typer.echo(f"{folder}: answers cannot be kept here ({error}): nothing is remembered", err=True)

    def key(self, path: str) -> str | None:
        """What the answer about a file is kept under; None where nothing is, or the file cannot be read."""
        from calm.io import sha256_file, sha256_text

        with suppress(OSError, ValueError):
            return None if self._cache is None else sha256_text(sha256_file(Path(path)) + self._question)
        return None

    def get(self, key: str | None) -> dict[str, Any] | None:
        """The row that was kept; a memory that is damaged or taken costs the memory of it, not the answer."""
        found: dict[str, Any] | None = None
        if key is not None:
            with suppress(Exception):
                found = self._cache.get(key)
        return found

    def keep(self, key: str | None, row: Mapping[str, Any]) -> None:
        """Keep a row; a disk that is full costs the memory of it, not the answer."""
        if key is not None:
            with suppress(Exception):
                self._cache.set(key, dict(row))
