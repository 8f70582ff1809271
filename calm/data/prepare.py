"""Stage `prepare`: every photograph decoded once, upright, sRGB, scaled, hashed, into shards and tables.

What cannot be read is quarantined with the reason; nothing is dropped silently.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from PIL import Image, ImageOps

from calm.data import ArchiveError
from calm.data.progress import in_order, progress
from calm.data.reading.base import MANIFEST, Photograph, Rows, SourceError, checked_sha256
from calm.data.settings import ImageParams
from calm.data.sources import Source, source
from calm.data.store import tables
from calm.data.store.fingerprints import fingerprint, perceptual_hash
from calm.data.store.images import MIN_SIDE, ImageError, encode, read_image
from calm.data.store.pixels import fit
from calm.data.store.shards import SHARD_BYTES, ShardState
from calm.data.store.tables import rows_to_frame
from calm.data.store.text import clean
from calm.io import atomic_dir, code_sha256, sha256_file, sha256_text, write_table
from calm.layout import Layout
from calm.params import Params

ABSENT = "labels name it, and no such photograph was found"
WAITING = 4  # photographs for each thread that are worked on or wait for the one before them: bounds the memory
FINGERPRINT_ONLY = [name for name in tables.FINGERPRINT.names if name not in tables.ITEM.names]
STORED = pa.schema(  # a picture's row in the state
    [
        *(field for field in tables.ITEM if field.name != "dataset"),
        *(tables.FINGERPRINT.field(name) for name in FINGERPRINT_ONLY),
    ]
)


@dataclass(frozen=True)
class Stored:
    """One picture ready for a shard: its row of ITEM and FINGERPRINT without shard and row, and its JPEG bytes."""

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
    origin = source(dataset, params, layout)
    hashes = read_manifest(layout.raw(dataset))
    photographs = _ordered(list(origin.photographs()), dataset)
    _check_other_files(origin, hashes, {photograph.name for photograph in photographs if not photograph.packed})
    key = _key(origin, photographs, params, layout)
    state = ShardState(layout.state(f"prepare-{dataset}"), key, STORED, SHARD_BYTES)
    with atomic_dir(layout.prepared(dataset)) as folder:
        try:
            _write_shards(state, origin, photographs, hashes, params)
        except BaseException:
            state.abandon()
            raise
        rows, absent = state.rows(), sorted(origin.absent().items())
        quarantine = state.quarantine + [{"item_id": item, "path": name, "reason": ABSENT} for item, name in absent]
        if rows.empty:
            reason = quarantine[0]["reason"] if quarantine else "the dataset is empty"
            state.release()
            raise SourceError(f"dataset '{dataset}': not one of its photographs can be used; the first: {reason}")
        prints = _table(rows[["item_id", *FINGERPRINT_ONLY]], tables.FINGERPRINT, dataset)
        frame = _table(rows.drop(columns=FINGERPRINT_ONLY), tables.ITEM, dataset)
        ratings = _of_prepared(_table(origin.ratings(frame), tables.RATING, dataset), frame)
        comments = _of_prepared(_table(_cleaned(origin.comments(frame)), tables.COMMENT, dataset), frame)
        write_table(folder / "items.parquet", frame, tables.ITEM)
        write_table(folder / "fingerprints.parquet", prints, tables.FINGERPRINT)
        write_table(folder / "ratings.parquet", ratings, tables.RATING)
        write_table(folder / "comments.parquet", comments, tables.COMMENT)
        write_table(folder / "quarantine.parquet", _table(quarantine, tables.QUARANTINE, dataset), tables.QUARANTINE)
        state.copy_to(folder)
    state.release()


def read_manifest(raw: Path) -> dict[str, str]:
    """sha256 of every fetched file by its name."""
    path = raw / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run the stage `fetch` of this dataset first")
    return {entry["name"]: entry["sha256"] for entry in json.loads(path.read_text(encoding="utf-8"))["files"]}


def _write_shards(
    state: ShardState, origin: Source, photographs: list[Photograph], hashes: dict[str, str], params: Params
) -> None:
    """Decode what is not in the state yet, in the order of `photographs`, on any number of threads."""
    work = partial(_prepare_one, origin, hashes, params.data.image)
    start, _ = state.position
    with (
        ThreadPoolExecutor(params.threads.prepare) as pool,
        progress(f"prepare {origin.name}", len(photographs), "images", start) as advance,
    ):
        outcomes = in_order(pool, work, photographs[start:], WAITING * params.threads.prepare)
        for number, outcome in enumerate(outcomes, start):
            advance(1)
            if isinstance(outcome, Refused):
                refused = outcome.photograph
                state.refuse({"item_id": refused.item_id, "path": refused.label, "reason": outcome.reason})
                continue
            for picture, stored in enumerate(outcome):
                state.add((number, picture), stored.row, stored.data)
    state.close((len(photographs), 0))


def _key(origin: Source, photographs: list[Photograph], params: Params, layout: Layout) -> str:
    """Hash of everything that decides the shards: state of other files, settings or code is not gone on with."""
    names = sha256_text("\n".join(f"{one.item_id}\t{one.label}\t{one.split}\t{one.group}" for one in photographs))
    parts = [
        origin.name,
        sha256_file(layout.raw(origin.name) / MANIFEST),
        names,
        params.seed,
        params.data.datasets[origin.name],
        params.data.image.model_dump(),
        SHARD_BYTES,
        params.threads.prepare if type(origin).views is not Source.views else None,  # edits are sums of floats
        [version(name) for name in ("pillow", "pillow-heif", "numpy", "scipy", "pyarrow", "torch", "kornia")],
        code_sha256("attributes", "data"),
    ]
    return sha256_text(json.dumps(parts, sort_keys=True, default=str))


def _check_other_files(origin: Source, hashes: dict[str, str], photographs: set[str]) -> None:
    """Tables and archives must be those that were fetched; photographs of their own are checked as they are read."""
    for file in origin.files():
        if file.name not in photographs:
            checked_sha256(replace(file, sha256=hashes.get(file.name, "that no manifest has: run `fetch` again")))


def _prepare_one(
    origin: Source, hashes: dict[str, str], settings: ImageParams, photograph: Photograph
) -> list[Stored] | Refused:
    """Decode one photograph and make its views."""
    try:
        data = photograph.read_bytes()
    except ArchiveError as error:  # the archive is the one that was fetched: it was published like this
        return Refused(photograph, str(error))
    except OSError as error:
        raise SourceError(f"{photograph.name}: {error}: run the stage `fetch` again") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if not photograph.packed and hashes.get(photograph.name) != sha256:
        raise SourceError(
            f"{photograph.name}: sha256 {sha256} is not the one of the manifest ({hashes.get(photograph.name)}): "
            "the file has changed since it was fetched; run the stage `fetch` again"
        )
    try:
        image = read_image(data, max_pixels=settings.max_pixels, name=photograph.label)
        image = fit(image, settings.max_side)
        if min(image.size) < MIN_SIDE:
            raise ImageError(f"{photograph.label}: {image.width}x{image.height} pixels when scaled, too narrow")
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


def _ordered(photographs: list[Photograph], dataset: str) -> list[Photograph]:
    """The photographs in an order that is cheap to read, if no two share an id."""
    seen: dict[str, str] = {}
    for photograph in photographs:
        if photograph.item_id in seen:
            raise SourceError(
                f"dataset '{dataset}': {seen[photograph.item_id]} and {photograph.label} are both called "
                f"'{photograph.item_id}'"
            )
        seen[photograph.item_id] = photograph.label
    return sorted(photographs, key=lambda one: one.ref.locality if one.ref is not None else ("", 0))
