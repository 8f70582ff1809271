"""All prepared items of all datasets together, as the leakage filter sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calm.data.leakage.near_duplicates import Looks
from calm.data.store import tables
from calm.layout import Layout

HUMAN = "human"  # origin of a text
_COLUMNS = ("dataset", "item_id", "group", "sha256", "phash", "phash_mirrored", "synthetic_edits")
_TEXT_COLUMNS = ("item_id", "text_clean", "origin")


@dataclass(frozen=True)
class Corpus:
    """Items ordered by dataset and item id; row numbers 0, 1, ... are what positions refer to.

    `items`: some columns of ITEM, `split` as the stage `split` decided it, and `photograph`, the id without the number
    of a synthetic view. `looks`: of the same rows. `texts`: columns item (a position), text_clean, origin.
    """

    items: pd.DataFrame
    looks: Looks
    texts: pd.DataFrame

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which items are test items."""
        return (self.items["split"] == "test").to_numpy(bool)


def load(layout: Layout, datasets: list[str]) -> Corpus:
    """Read what was prepared of the datasets.

    Raises:
        ValueError: tables of a dataset do not belong together: a stage has to run again.
    """
    items = pd.concat([_items(layout, dataset) for dataset in datasets], ignore_index=True)
    items["photograph"] = items["item_id"].str.replace(r"#v\d+$", "", regex=True)
    prints = [_fingerprints(layout, dataset, items) for dataset in datasets]
    whole = np.stack([integers(items[column]) for column in ("phash", "phash_mirrored")], axis=1)
    crops, thumbnails = (np.concatenate(parts) for parts in zip(*prints, strict=True))
    texts = pd.concat([_texts(layout, dataset, items) for dataset in datasets], ignore_index=True)
    return Corpus(items, Looks(whole, crops, thumbnails), texts)


def _items(layout: Layout, dataset: str) -> pd.DataFrame:
    """Items of a dataset with their split, ordered by id."""
    items = tables.items(layout, dataset, _COLUMNS)
    splits = tables.splits(layout, dataset)[["item_id", "split"]]
    joined = items.merge(splits, on="item_id", how="left", validate="1:1")
    if joined["split"].isna().any():
        first = joined.loc[joined["split"].isna(), "item_id"].iloc[0]
        raise ValueError(f"dataset '{dataset}': item '{first}' has no split: run the stage `split` again")
    return joined.sort_values("item_id", ignore_index=True)


def _fingerprints(layout: Layout, dataset: str, items: pd.DataFrame) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Hashes of crops, and thumbnails, of a dataset's rows of `items`."""
    ids, prints = items.loc[items["dataset"] == dataset, "item_id"], tables.fingerprints(layout, dataset)
    order = pd.Index(prints.item_ids).get_indexer(pd.Index(ids))
    if len(prints.item_ids) != len(ids) or (order < 0).any():
        raise ValueError(f"dataset '{dataset}': fingerprints of other items: run the stage `prepare` again")
    if (order == np.arange(len(order))).all():
        return prints.crops, prints.thumbnails
    return prints.crops[order], prints.thumbnails[order]


def _texts(layout: Layout, dataset: str, items: pd.DataFrame) -> pd.DataFrame:
    """What was said of a dataset's items."""
    texts = tables.comments(layout, dataset, _TEXT_COLUMNS)
    ids = items.loc[items["dataset"] == dataset, "item_id"]
    place = pd.Index(ids).get_indexer(pd.Index(texts["item_id"]))
    if (place < 0).any():
        raise ValueError(f"dataset '{dataset}': comments on other items: run the stage `prepare` again")
    return texts[["text_clean", "origin"]].assign(item=ids.index.to_numpy()[place])


def integers(hashes: pd.Series) -> NDArray[np.uint64]:
    """16 hex digits each to unsigned 64-bit integers."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=">u8").astype(np.uint64)
