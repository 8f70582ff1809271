"""Stage `prepare`: every photograph decoded once, upright, sRGB, scaled, hashed, into shards and tables.

What cannot be read is quarantined with the reason; nothing is dropped silently.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from calm.data import schema
from calm.data.fingerprints import fingerprint, perceptual_hash
from calm.data.images import MIN_SIDE, ImageError, ShardWriter, encode, fit, read_image
from calm.data.sources import Source, source
from calm.data.sources.base import MANIFEST, Photograph, Rows, SourceError, checked_sha256
from calm.data.tables import rows_to_frame
from calm.data.text import clean
from calm.io import atomic_dir, write_table
from calm.layout import Layout
from calm.params import ImageParams, Params

_CHUNK = 32  # photographs handed to the workers at a time: bounds what waits in memory
Element = TypeVar("Element")


@dataclass(frozen=True)
class Stored:
    """One picture ready for a shard: its row of ITEM without shard and row, and its JPEG bytes."""

    row: dict[str, Any]
    data: bytes


@dataclass(frozen=True)
class Refused:
    """One photograph that could not be used."""

    photograph: Photograph
    reason: str


def prepare(dataset: str, params: Params, layout: Layout) -> None:
    """Read every photograph of a dataset and write data/prepared/DATASET.

    Raises:
        FileNotFoundError: the dataset was not fetched.
        SourceError: its files are not those that were fetched, or not one photograph could be used.
    """
    origin = source(dataset, params)
    hashes = read_manifest(layout.raw(dataset))
    with atomic_dir(layout.prepared(dataset)) as folder:
        items, quarantine = _write_shards(origin, hashes, params, folder)
        if not items:
            reason = quarantine[0]["reason"] if quarantine else "the dataset is empty"
            raise SourceError(f"dataset '{dataset}': not one of its photographs can be used; the first: {reason}")
        items.sort(key=lambda row: row["item_id"])
        prints = [{key: row.pop(key) for key in ("crops", "thumbnail")} | {"item_id": row["item_id"]} for row in items]
        frame = _table(items, schema.ITEM, dataset)
        ratings = _of_prepared(_table(origin.ratings(frame), schema.RATING, dataset), frame)
        comments = _of_prepared(_table(_cleaned(origin.comments(frame)), schema.COMMENT, dataset), frame)
        write_table(folder / "items.parquet", frame, schema.ITEM)
        write_table(folder / "fingerprints.parquet", _table(prints, schema.FINGERPRINT, dataset), schema.FINGERPRINT)
        write_table(folder / "ratings.parquet", ratings, schema.RATING)
        write_table(folder / "comments.parquet", comments, schema.COMMENT)
        write_table(folder / "quarantine.parquet", _table(quarantine, schema.QUARANTINE, dataset), schema.QUARANTINE)


def read_manifest(raw: Path) -> dict[str, str]:
    """sha256 of every fetched file by its name."""
    path = raw / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run the stage `fetch` of this dataset first")
    return {entry["name"]: entry["sha256"] for entry in json.loads(path.read_text(encoding="utf-8"))["files"]}


def _write_shards(
    origin: Source, hashes: dict[str, str], params: Params, folder: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write the shards in the source's order; return rows of ITEM and of QUARANTINE."""
    items: list[dict[str, Any]] = []
    quarantine: list[dict[str, Any]] = []
    photographs = _unique(list(origin.photographs()), origin.name)
    _check_other_files(origin, hashes, {photograph.name for photograph in photographs})
    work = partial(_prepare_one, origin, hashes, params.data.image)
    shards = ShardWriter(folder)
    with ThreadPoolExecutor(params.threads.prepare) as pool:
        done = itertools.chain.from_iterable(pool.map(work, chunk) for chunk in _chunks(photographs, _CHUNK))
        for outcome in _progress(done, f"prepare {origin.name}", len(photographs)):
            if isinstance(outcome, Refused):
                refused = outcome.photograph
                quarantine.append({"item_id": refused.item_id, "path": refused.name, "reason": outcome.reason})
                continue
            for stored in outcome:
                shard, row = shards.add(stored.row["item_id"], stored.data)
                items.append({**stored.row, "shard": shard, "row": row})
    shards.close()
    return items, quarantine


def _check_other_files(origin: Source, hashes: dict[str, str], photographs: set[str]) -> None:
    """Tables of ratings and the like must be those that were fetched; photographs are checked as they are read."""
    for file in origin.files():
        if file.name not in photographs:
            checked_sha256(replace(file, sha256=hashes.get(file.name, "that no manifest has: run `fetch` again")))


def _prepare_one(
    origin: Source, hashes: dict[str, str], settings: ImageParams, photograph: Photograph
) -> list[Stored] | Refused:
    """Decode one photograph and make its views."""
    try:
        data = photograph.read_bytes()
    except OSError as error:
        raise SourceError(f"{photograph.name}: {error}: run the stage `fetch` again") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if hashes.get(photograph.name) != sha256:
        raise SourceError(
            f"{photograph.name}: sha256 {sha256} is not the one of the manifest ({hashes.get(photograph.name)}): "
            "the file has changed since it was fetched; run the stage `fetch` again"
        )
    try:
        image = read_image(data, max_pixels=settings.max_pixels, name=photograph.name)
        image = fit(image, settings.max_side)
        if min(image.size) < MIN_SIDE:
            raise ImageError(f"{photograph.name}: {image.width}x{image.height} pixels when scaled, too narrow")
    except ImageError as error:
        return Refused(photograph, str(error))
    stored = [_store(photograph, photograph.item_id, image, settings, sha256, None)]
    for view in origin.views(photograph, image):
        stored.append(_store(photograph, view.item_id, view.image, settings, None, view.edits))
    return stored


def _store(
    photograph: Photograph,
    item_id: str,
    image: Image.Image,
    settings: ImageParams,
    sha256: str | None,
    edits: str | None,
) -> Stored:
    """Encode and hash one picture; without a source file its own bytes are hashed."""
    data = encode(image, settings.jpeg_quality)
    row = {
        "item_id": item_id,
        "split": photograph.split,
        "split_rule": photograph.split_rule,
        "group": photograph.group,
        "width": image.width,
        "height": image.height,
        "sha256": sha256 or hashlib.sha256(data).hexdigest(),
        "phash": perceptual_hash(image),
        "phash_mirrored": perceptual_hash(ImageOps.mirror(image)),
        **asdict(fingerprint(image)),
        "licence": photograph.licence,
        "synthetic_edits": edits,
    }
    return Stored(row, data)


def _table(rows: Rows, kind: pa.Schema, dataset: str) -> pd.DataFrame:
    return rows_to_frame(rows, kind, dataset=dataset)


def _cleaned(comments: Rows) -> pd.DataFrame:
    """Comments with their text as it is shown to a model."""
    frame = pd.DataFrame(comments)
    return frame.assign(text_clean=[clean(text) for text in frame["text"]]) if len(frame) else frame


def _of_prepared(rows: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Rows of items that were not quarantined."""
    return rows[rows["item_id"].isin(items["item_id"])].reset_index(drop=True)


def _unique(photographs: list[Photograph], dataset: str) -> list[Photograph]:
    """The photographs, if no two share an id."""
    seen: dict[str, str] = {}
    for photograph in photographs:
        if photograph.item_id in seen:
            raise SourceError(
                f"dataset '{dataset}': {seen[photograph.item_id]} and {photograph.name} are both called "
                f"'{photograph.item_id}'"
            )
        seen[photograph.item_id] = photograph.name
    return photographs


def _chunks(elements: list[Element], size: int) -> Iterator[list[Element]]:
    for start in range(0, len(elements), size):
        yield elements[start : start + size]


def _progress(elements: Iterable[Element], description: str, total: int) -> Iterable[Element]:
    """A progress bar on stderr if that is a terminal."""
    console = Console(stderr=True)
    return track(elements, description, total=total, console=console, transient=True, disable=not console.is_terminal)


__all__ = ["perceptual_hash", "prepare", "read_manifest"]
