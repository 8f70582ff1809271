"""Shards of prepared photographs: written, taken up again after a stop, read.

Shards under work lie in a state folder that outlives a killed process. They are cut by size in a fixed order, so the
next one begins where the last whole one ended: a record beside each says with which picture of which photograph that
is. What a killed process left of an unfinished shard is thrown away, and at the end the same bytes stand there as if
nothing had happened.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from calm.data.store.images import read_image
from calm.data.store.tables import IMAGE
from calm.io import atomic_file, write_json

SHARD_PATTERN = "images-*.arrow"
SHARD_BYTES = 64 * 2**20
Position = tuple[int, int]  # photograph in the source's order, picture of it: 0, then its views


class ShardWriter:
    """Writes photographs into `images-00000.arrow`, ... of bounded size, in the order given; `first` is the first."""

    def __init__(self, folder: Path, shard_bytes: int = 64 * 2**20, batch_rows: int = 64, first: int = 0) -> None:
        self.folder, self.shard_bytes, self.batch_rows = folder, shard_bytes, batch_rows
        self._count, self._rows, self._size = first, 0, 0
        self._pending: list[tuple[str, bytes]] = []
        self._file: pa.NativeFile | None = None
        self._writer: pa.RecordBatchFileWriter | None = None

    def is_full(self, more: int) -> bool:
        """Whether `more` bytes begin a new shard."""
        return self._writer is not None and self._size + more > self.shard_bytes

    def add(self, item_id: str, data: bytes) -> tuple[str, int]:
        """Append one photograph; return its shard's file name and its row there."""
        if self.is_full(len(data)):
            self.close()
        if self._writer is None:
            self._file = pa.OSFile(str(self.folder / f"images-{self._count:05d}.arrow"), "wb")
            self._writer = pa.ipc.new_file(self._file, IMAGE)
            self._count, self._rows, self._size = self._count + 1, 0, 0
        self._pending.append((item_id, data))
        self._rows, self._size = self._rows + 1, self._size + len(data)
        if len(self._pending) >= self.batch_rows:
            self._write_pending()
        return f"images-{self._count - 1:05d}.arrow", self._rows - 1

    def close(self) -> str | None:
        """Finish the open shard and return its file name; None if there is none."""
        if self._writer is None or self._file is None:
            return None
        self._write_pending()
        self._writer.close()
        self._file.close()
        self._writer = self._file = None
        return f"images-{self._count - 1:05d}.arrow"

    def _write_pending(self) -> None:
        assert self._writer is not None
        if self._pending:
            columns: Sequence[Sequence[object]] = list(zip(*self._pending, strict=True))
            arrays = [pa.array(column, field.type) for column, field in zip(columns, IMAGE, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=IMAGE))
            self._pending = []


class ImageStore:
    """Read-only, memory-mapped access to the photographs of one prepared dataset by `item_id`.

    Cheap to pickle: workers of a data loader map the same files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        paths = sorted(self.folder.glob(SHARD_PATTERN))
        if not paths:
            raise FileNotFoundError(f"{self.folder} holds no image shards: run the stage `prepare` of this dataset")
        self._images: list[pa.ChunkedArray] = []
        self._where: dict[str, tuple[int, int]] = {}
        for number, path in enumerate(paths):
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            if not table.schema.equals(IMAGE):
                raise ValueError(f"{path}: not a shard of photographs")
            self._images.append(table.column("image"))
            for row, item_id in enumerate(table.column("item_id").to_pylist()):
                self._where[item_id] = (number, row)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __getitem__(self, item_id: str) -> Image.Image:
        """The photograph, mode RGB.

        Raises:
            KeyError: no such item; the message names it and the folder.
        """
        data = self.encoded(item_id)
        return read_image(data, max_pixels=Image.MAX_IMAGE_PIXELS or 2**28, name=f"{self.folder}: {item_id}")

    def encoded(self, item_id: str) -> bytes:
        """The stored JPEG bytes."""
        if item_id not in self._where:
            raise KeyError(f"{self.folder} has no item '{item_id}'")
        shard, row = self._where[item_id]
        return cast(bytes, self._images[shard][row].as_py())

    def __reduce__(self) -> tuple[type[ImageStore], tuple[Path]]:
        return (ImageStore, (self.folder,))


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
