"""The tables that stages hand to one another: Arrow schemas, checked at every border (`calm.io`), and readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from calm.io import read_arrow, read_table
from calm.layout import Layout

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
THUMBNAIL = (32, 32)  # of FINGERPRINT
ROLES = ("unlabelled", "generic", "comments", "scores", "raters")


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


ITEM = pa.schema(
    [
        _required("dataset", pa.string()),
        _required("item_id", pa.string()),
        pa.field("split", pa.string()),  # official split: train | validation | test; null = none published
        pa.field("split_rule", pa.string()),  # what published it; null with split
        _required("group", pa.string()),  # items of one group are near-duplicates and never straddle a split
        _required("width", pa.int32()),  # pixels, as stored
        _required("height", pa.int32()),
        _required("sha256", pa.string()),  # of the source file's bytes; a synthetic view: of its own stored bytes
        _required("phash", pa.string()),  # 64-bit perceptual hash, 16 hex digits
        _required("phash_mirrored", pa.string()),  # the same of the photograph flipped left to right
        _required("shard", pa.string()),  # file name in the dataset's folder
        _required("row", pa.int32()),  # row in that shard
        _required("licence", pa.string()),
        pa.field("synthetic_edits", pa.string()),  # JSON list of edits that made this view; null = as photographed
    ]
)

# Beside the hashes of ITEM: what finds a photograph again that was cropped (`calm.data.store.fingerprints`).
FINGERPRINT = pa.schema(
    [
        _required("dataset", pa.string()),
        _required("item_id", pa.string()),
        _required("crops", pa.binary(240)),  # 30 perceptual hashes of slightly cropped versions, 8 bytes each
        _required("thumbnail", pa.binary(1024)),  # 32 x 32 grey levels
    ]
)

RATING = pa.schema(
    [
        _required("dataset", pa.string()),
        _required("item_id", pa.string()),
        pa.field("rater_id", pa.string()),  # null = the crowd's mean
        _required("score", pa.float64()),
        _required("score_min", pa.float64()),
        _required("score_max", pa.float64()),
        pa.field("votes", pa.list_(pa.int32())),  # histogram over the scale's steps
        pa.field("n", pa.int32()),  # number of raters behind the score
        _required("origin", pa.string()),  # human | synthetic_edits | synthetic_rater
    ]
)

COMMENT = pa.schema(
    [
        _required("dataset", pa.string()),
        _required("item_id", pa.string()),
        _required("comment_id", pa.string()),
        _required("text", pa.string()),
        _required("text_clean", pa.string()),
        # null = the photograph as a whole; 'caption' = what it shows; 'qa:QUESTION' = an answer (`text`)
        pa.field("aspect", pa.string()),
        _required("origin", pa.string()),  # human | synthetic_* | file_name | theme | imagenet_class
    ]
)

QUARANTINE = pa.schema(
    [
        _required("dataset", pa.string()),
        _required("item_id", pa.string()),
        _required("path", pa.string()),  # relative to the dataset's folder
        _required("reason", pa.string()),
    ]
)

IMAGE = pa.schema([_required("item_id", pa.string()), _required("image", pa.binary())])

SPLIT = pa.schema(
    [
        _required("dataset", pa.string()),
        _required("item_id", pa.string()),
        _required("split", pa.string()),  # train | validation | test
        _required("rule", pa.string()),  # what put it there
    ]
)

RATER = pa.schema(
    [
        _required("dataset", pa.string()),
        _required("rater_id", pa.string()),
        _required("split", pa.string()),  # train | test: test raters are unknown to training
        _required("rule", pa.string()),  # what put the rater there
    ]
)

SUPPORT = pa.schema(
    [
        _required("dataset", pa.string()),
        _required("rater_id", pa.string()),  # a test rater
        _required("shots", pa.int32()),  # rated photographs of this rater that personalised scoring sees
        _required("draw", pa.int32()),  # 0, 1, ...: independent draws of the support set
        _required("item_id", pa.string()),  # of the test split
        _required("part", pa.string()),  # support: seen with its rating | query: to be ranked
    ]
)

LIST = pa.schema(
    [_required("dataset", pa.string()), _required("item_id", pa.string()), _required("split", pa.string())]
)

REMOVED = pa.schema(
    [
        _required("role", pa.string()),
        _required("dataset", pa.string()),
        _required("item_id", pa.string()),
        _required("reason", pa.string()),  # id | sha256 | group | phash | crop | caption
        _required("test_dataset", pa.string()),
        _required("test_item_id", pa.string()),
        pa.field("distance", pa.int32()),  # phash, crop: Hamming distance of the perceptual hashes
        pa.field("correlation", pa.float64()),  # phash, crop: of the thumbnails laid over one another
        pa.field("mirrored", pa.bool_()),  # phash, crop: one is the other flipped left to right
    ]
)

GUIDANCE = pa.schema(
    [
        _required("level", pa.string()),
        _required("attribute", pa.string()),
        _required("state", pa.string()),
        _required("text", pa.string()),
        _required("provider", pa.string()),  # grammar, or openai@ADDRESS
        _required("model", pa.string()),  # version of the grammar, or the model that the server says has answered
        _required("prompt_sha256", pa.string()),  # of the request, its key in the ledger; grammar: of version and place
        _required("text_sha256", pa.string()),
    ]
)

PROMPT = pa.schema(
    [
        _required("task", pa.string()),  # caption | comment | score | personal | suggestion
        _required("prompt", pa.string()),
        _required("provider", pa.string()),  # calm for the one that evaluation uses, else as in GUIDANCE
        _required("model", pa.string()),
        _required("prompt_sha256", pa.string()),
        _required("text_sha256", pa.string()),
    ]
)

REJECTED_TEXT = pa.schema(
    [
        _required("scope", pa.string()),  # level, or "instruction"
        _required("family", pa.string()),  # attribute, or "prompt"
        _required("name", pa.string()),  # state, or task
        _required("style", pa.string()),
        _required("round", pa.int32()),
        _required("text", pa.string()),  # cleaned and capped; the ledger has the answer as it came
        _required("reason", pa.string()),
        _required("prompt_sha256", pa.string()),
    ]
)


INSTRUCTION = pa.schema(
    [
        _required("task", pa.string()),  # caption | comment | score | question
        _required("dataset", pa.string()),
        _required("item_ids", pa.list_(pa.string())),
        _required("split", pa.string()),
        _required("messages", MESSAGES),  # content holds one <image> for each item
        _required("answer", pa.string()),
        pa.field("score", pa.float64()),  # the number behind the answer, where there is one
        pa.field("level", pa.string()),
        pa.field("spoilt", pa.string()),  # one of calm.attributes.edits.SPOILT; null: as it is
        pa.field("told", pa.list_(pa.string())),  # "attribute: state" that the prompt tells of; null: those recognised
        _required("origin", pa.string()),  # of the answer: as in COMMENT and RATING
    ]
)


def items(layout: Layout, dataset: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Every prepared item of a dataset (ITEM), or some of its columns."""
    return read_table(layout.prepared(dataset) / "items.parquet", ITEM, columns)


def fingerprints(layout: Layout, dataset: str) -> Fingerprints:
    """What finds each item of a dataset again when it was cropped, in the order of `items` (FINGERPRINT)."""
    table = read_arrow(layout.prepared(dataset) / "fingerprints.parquet", FINGERPRINT)
    crops, thumbnails = (_bytes(table.column(name)) for name in ("crops", "thumbnail"))
    return Fingerprints(
        table.column("item_id").to_pandas(), crops.view("<u8"), thumbnails.reshape(len(table), *THUMBNAIL)
    )


@dataclass(frozen=True)
class Fingerprints:
    """Of N items: ids, hashes of slightly cropped versions (N, 30), thumbnails (N, 32, 32) of grey levels."""

    item_ids: pd.Series
    crops: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]


def _bytes(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """(N, width) bytes of a column of fixed width, without a Python object for each."""
    width = column.type.byte_width
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * width :][: len(chunk) * width]
        for chunk in column.chunks
    ]
    return np.concatenate([np.zeros(0, np.uint8), *chunks]).reshape(-1, width)


def ratings(layout: Layout, dataset: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Every rating of a dataset (RATING), or some columns; rater_id is null for a crowd's mean."""
    return read_table(layout.prepared(dataset) / "ratings.parquet", RATING, columns)


def comments(layout: Layout, dataset: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Every comment and caption of a dataset (COMMENT), or some columns."""
    return read_table(layout.prepared(dataset) / "comments.parquet", COMMENT, columns)


def quarantine(layout: Layout, dataset: str) -> pd.DataFrame:
    """Photographs that could not be used, with the reason (QUARANTINE)."""
    return read_table(layout.prepared(dataset) / "quarantine.parquet", QUARANTINE)


def splits(layout: Layout, dataset: str) -> pd.DataFrame:
    """The split of every item of a dataset and the rule that put it there (SPLIT)."""
    return read_table(layout.splits / f"{dataset}.parquet", SPLIT)


def raters(layout: Layout, dataset: str) -> pd.DataFrame:
    """Every single rater of a dataset, for training or held out (RATER); no rows where there are none."""
    return read_table(layout.rater_splits / f"{dataset}.parquet", RATER)


def support_sets(layout: Layout, dataset: str) -> pd.DataFrame:
    """For each test rater, what personalised scoring sees and what it ranks, draw by draw (SUPPORT)."""
    return read_table(layout.support_sets / f"{dataset}.parquet", SUPPORT)


def role_list(layout: Layout, role: str) -> pd.DataFrame:
    """Items that may be used for a role, after the leakage filter, with their split (LIST)."""
    assert role in ROLES, role
    return read_table(layout.lists / f"{role}.parquet", LIST)


def removed(layout: Layout) -> pd.DataFrame:
    """Training items that the leakage filter took out, per role, and why (REMOVED)."""
    return read_table(layout.lists / "removed.parquet", REMOVED)


def instructions(layout: Layout, use: str) -> pd.DataFrame:
    """Prompts and answers of one use: generic, comments or scores (INSTRUCTION)."""
    return read_table(layout.instructions / f"{use}.parquet", INSTRUCTION)


def rows_to_frame(rows: list[dict[str, Any]] | pd.DataFrame, schema: pa.Schema, **constant: str) -> pd.DataFrame:
    """A frame with exactly the columns of `schema`; columns that rows leave out are null.

    Raises:
        ValueError: a row has a column that the schema does not know.
    """
    frame = pd.DataFrame(rows) if len(rows) else pd.DataFrame({name: [] for name in schema.names}, dtype=object)
    frame = frame.assign(**constant)
    unknown = set(frame.columns) - set(schema.names)
    if unknown:
        raise ValueError(f"unknown columns {sorted(unknown)}")
    return frame.reindex(columns=schema.names).astype(object).where(lambda cells: cells.notna(), None)
