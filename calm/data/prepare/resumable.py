"""Shards under work, in a state folder that outlives a killed process.

Shards are cut by size in a fixed order, so the next one begins where the last whole one ended: a record beside each
says with which picture of which photograph that is. What a killed process left of an unfinished shard is thrown away,
and at the end the same bytes stand there as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from calm.data.store.images import SHARD_PATTERN, ShardWriter
from calm.io import atomic_file, write_json

SHARD_BYTES = 64 * 2**20
Position = tuple[int, int]  # photograph in the source's order, picture of it: 0, then its views


class ShardState:
    """Pictures and what is known of them, kept in `state/KEY` until `release`.

    Args:
        state: the stage's state folder; that of work with another key is removed.
        key: hash of everything that decides the shards.
        fields: Arrow schema of a picture's row; `shard` and `row` are added here.
    """

    def __init__(self, state: Path, key: str, fields: pa.Schema, shard_bytes: int = SHARD_BYTES) -> None:
        self.state, self.folder, self.fields = state, state / key[:16], fields
        self.position: Position = (0, 0)
        self.quarantine: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []
        for old in state.glob("*") if state.is_dir() else ():
            if old != self.folder:
                shutil.rmtree(old)
        finished = self._recover()
        self._refused_before = len(self.quarantine)
        self._writer = ShardWriter(self.folder, shard_bytes, first=finished)

    def _recover(self) -> int:
        """Read the records of whole shards, remove what comes after them, and return how many there are."""
        count = 0
        while (record := self._read(count)) is not None:
            self.position = (record["photograph"], record["picture"])
            self.quarantine += record["quarantine"]
            count += 1
        kept = {name for number in range(count) for name in self._names(number)}
        for path in self.folder.glob("*") if self.folder.is_dir() else ():
            if path.name not in kept:
                path.unlink()
        return count

    def _read(self, number: int) -> dict[str, Any] | None:
        """The record of a shard, which is written last of all; None if the shard is not whole."""
        shard, rows, record = (self.folder / name for name in self._names(number))
        try:
            found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
            whole = shard.stat().st_size == found["bytes"] and pq.read_metadata(rows).num_rows == found["rows"]
        except (OSError, ValueError, KeyError, pa.ArrowException):
            return None
        return found if whole else None

    @staticmethod
    def _names(number: int) -> tuple[str, str, str]:
        stem = f"images-{number:05d}"
        return f"{stem}.arrow", f"{stem}.parquet", f"{stem}.json"

    def add(self, position: Position, row: dict[str, Any], data: bytes) -> None:
        """Append the picture at `position`; one that an earlier process stored is passed over."""
        if position < self.position:
            return
        if self._writer.is_full(len(data)):
            self._finish(position)
        self.folder.mkdir(parents=True, exist_ok=True)
        shard, number = self._writer.add(row["item_id"], data)
        self._rows.append({**row, "shard": shard, "row": number})

    def refuse(self, row: dict[str, Any]) -> None:
        """Remember a photograph that cannot be used (a row of QUARANTINE)."""
        self.quarantine.append(row)

    def _finish(self, following: Position) -> None:
        """Close the open shard and record it; the next one begins with `following`."""
        name = self._writer.close()
        assert name is not None
        shard, rows, record = (self.folder / one for one in self._names(int(name[7:12])))
        with shard.open("rb") as file:
            os.fsync(file.fileno())
        with atomic_file(rows) as part:
            pq.write_table(pa.Table.from_pylist(self._rows, self.fields), part)
        refused = self.quarantine[self._refused_before :]
        found = {"bytes": shard.stat().st_size, "rows": len(self._rows), "quarantine": refused}
        write_json(record, {**found, "photograph": following[0], "picture": following[1]})
        self._rows, self._refused_before = [], len(self.quarantine)

    def close(self, following: Position) -> None:
        """All is added: close the last shard."""
        if self._rows:
            self._finish(following)

    def abandon(self) -> None:
        """Work ends here for now: whole shards stay, the open one goes."""
        with suppress(OSError):  # a full disk
            self._writer.close()
        self._recover()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            shutil.rmtree(self.state)

    def rows(self) -> pd.DataFrame:
        """The row of every picture, ordered by item id."""
        paths = sorted(self.folder.glob("images-*.parquet"))
        tables = [pq.read_table(path) for path in paths] or [self.fields.empty_table()]
        return pa.concat_tables(tables).sort_by("item_id").to_pandas()

    def copy_to(self, folder: Path) -> None:
        """Put the shards into an output folder, by hard links where the file system has them."""
        for path in sorted(self.folder.glob(SHARD_PATTERN)):
            try:
                os.link(path, folder / path.name)
            except OSError:
                shutil.copyfile(path, folder / path.name)

    def release(self) -> None:
        """Forget everything, once the output stands under its final name."""
        shutil.rmtree(self.state, ignore_errors=True)
