"""Stage `filter_leakage`: no photograph of any test set is left in any training list.

Two items are one photograph if they share an id (in whatever dataset), the sha256 of their file, a group of the same
dataset, or nearly a perceptual hash, also mirrored. What goes takes all synthetic views of its photograph with it, and
leaves the lists of every role.

Hashes are compared all against all: XOR and `np.bitwise_count` over blocks. That is exact for every distance that
params allow, where an index by bands would be fast for small ones only. On one core 6e8 pairs a second were seen:
20 s for the 250,000 photographs of AVA against its 20,000 for test, plain and mirrored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calm.data import tables
from calm.data.schema import LIST, REMOVED
from calm.io import atomic_dir, read_table, write_json, write_table
from calm.layout import Layout
from calm.params import Params

_BLOCK = 2**22  # hash pairs compared at a time: 32 MiB of XORs


def filter_leakage(params: Params, layout: Layout) -> None:
    """Write one list per role, what was removed from them and why, and the counts.

    Raises:
        ValueError: a dataset named by a role has nothing for it.
    """
    everything = {dataset: _with_split(layout, dataset) for dataset in sorted(params.data.datasets)}
    together = pd.concat(everything.values(), ignore_index=True)
    held_out = together["split"] == "test"
    test, distance = together[held_out], params.data.leakage.phash_distance
    leaks = find_leaks(together[~held_out], test, distance)
    with atomic_dir(layout.lists) as folder:
        removed, counts = [], {}
        for role, names in params.data.roles.model_dump().items():
            wanted = _role_items(role, sorted(names), everything, layout)
            kept = wanted[~_keys(wanted).isin(_keys(leaks))]
            write_table(folder / f"{role}.parquet", kept[LIST.names].reset_index(drop=True), LIST)
            removed.append(leaks[_keys(leaks).isin(_keys(wanted))].assign(role=role))
            counts[role] = _counts(kept, removed[-1])
        write_table(folder / "removed.parquet", pd.concat(removed, ignore_index=True)[REMOVED.names], REMOVED)
        metrics = {"phash_distance": distance, "test_items": len(test), "roles": counts}
        leaked_after = count_leaked(folder, list(counts), together, distance)
        write_json(folder / "leakage.json", {**metrics, "leaked_after": leaked_after})


def find_leaks(train: pd.DataFrame, test: pd.DataFrame, distance: int) -> pd.DataFrame:
    """Training items that show a photograph of the test set.

    Args:
        train, test: columns dataset, item_id, group, sha256, phash, phash_mirrored.
        distance: Hamming distance of perceptual hashes at or under which two items are one photograph.

    Returns:
        One row per leaked training item with columns dataset, item_id, reason, test_dataset, test_item_id and distance
        (null unless the reason is phash). A synthetic view whose photograph leaks has its photograph's row, and the
        other way round. Ordered by dataset and item id.
    """
    direct = pd.concat(
        [
            _match(train, test, "id", _photograph(train), _photograph(test)),
            _match(train, test, "sha256", train["sha256"], test["sha256"]),
            _match(train, test, "group", _group_keys(train), _group_keys(test)),
            _match_hashes(train, test, distance),
        ],
        ignore_index=True,
    ).drop_duplicates(["dataset", "item_id"])
    family = direct.assign(photograph=_photograph(direct))
    family = family.drop(columns="item_id").drop_duplicates(["dataset", "photograph"])
    everyone = train[["dataset", "item_id"]].assign(photograph=_photograph(train))
    inherited = everyone.merge(family, on=["dataset", "photograph"]).drop(columns="photograph")
    leaks = pd.concat([direct, inherited], ignore_index=True).drop_duplicates(["dataset", "item_id"])
    return leaks.sort_values(["dataset", "item_id"], ignore_index=True)


def hash_matches(left: np.ndarray, right: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """For each 64-bit hash of `left` (N,) its nearest one in `right` (M,): position (N,) and Hamming distance (N,).

    Where none is within `distance`, the position is -1. Ties go to the first.
    """
    position = np.full(len(left), -1, dtype=np.int64)
    nearest = np.full(len(left), 65, dtype=np.uint8)
    if not len(right):
        return position, nearest
    rows = max(1, _BLOCK // len(right))
    for start in range(0, len(left), rows):
        bits = np.bitwise_count(left[start : start + rows, None] ^ right[None, :])
        best = bits.argmin(axis=1)
        nearest[start : start + rows] = bits[np.arange(len(bits)), best]
        position[start : start + rows] = best
    position[nearest > distance] = -1
    return position, nearest


def _match_hashes(train: pd.DataFrame, test: pd.DataFrame, distance: int) -> pd.DataFrame:
    """Leaks by perceptual hash, of a test item as it is or mirrored."""
    left = _integers(train["phash"])
    found = [hash_matches(left, _integers(test[column]), distance) for column in ("phash", "phash_mirrored")]
    (plain, plain_bits), (mirrored, mirrored_bits) = found
    position = np.where((plain >= 0) & ((mirrored < 0) | (plain_bits <= mirrored_bits)), plain, mirrored)
    bits = np.minimum(plain_bits, mirrored_bits)
    hit = np.flatnonzero(position >= 0)
    return _leak_rows(train.iloc[hit], test.iloc[position[hit]], "phash", bits[hit].tolist())


def _match(train: pd.DataFrame, test: pd.DataFrame, reason: str, left: pd.Series, right: pd.Series) -> pd.DataFrame:
    """Leaks by equality of a key; of several test items the first is named."""
    first: dict[str, int] = {}
    for number, key in enumerate(right):
        first.setdefault(key, number)
    pairs = [(number, first[key]) for number, key in enumerate(left) if key in first]
    rows, partners = ([pair[side] for pair in pairs] for side in (0, 1))
    return _leak_rows(train.iloc[rows], test.iloc[partners], reason, [None] * len(pairs))


def _leak_rows(train: pd.DataFrame, test: pd.DataFrame, reason: str, distance: list[Any]) -> pd.DataFrame:
    """Rows of REMOVED without the role."""
    return pd.DataFrame(
        {
            "dataset": train["dataset"].to_numpy(object),
            "item_id": train["item_id"].to_numpy(object),
            "reason": reason,
            "test_dataset": test["dataset"].to_numpy(object),
            "test_item_id": test["item_id"].to_numpy(object),
            "distance": pd.Series(distance, dtype=object),
        }
    )


def _integers(hashes: pd.Series) -> np.ndarray:
    """16 hex digits to unsigned 64-bit integers."""
    return np.array([int(text, 16) for text in hashes], dtype=np.uint64)


def _photograph(frame: pd.DataFrame) -> pd.Series:
    """Id of the photograph behind an item: a synthetic view is called PHOTOGRAPH#vNN."""
    return frame["item_id"].astype(str).str.replace(r"#v\d+$", "", regex=True)


def _group_keys(frame: pd.DataFrame) -> pd.Series:
    return frame["dataset"].astype(str) + "\0" + frame["group"].astype(str)


def _keys(frame: pd.DataFrame) -> pd.Series:
    return frame["dataset"].astype(str) + "\0" + frame["item_id"].astype(str)


def _with_split(layout: Layout, dataset: str) -> pd.DataFrame:
    """Items of a dataset with the split that the stage `split` gave them."""
    items = tables.items(layout, dataset).drop(columns="split")
    joined = items.merge(tables.splits(layout, dataset)[["item_id", "split"]], on="item_id", how="left", validate="1:1")
    if joined["split"].isna().any():
        first = joined.loc[joined["split"].isna(), "item_id"].iloc[0]
        raise ValueError(f"dataset '{dataset}': item '{first}' has no split: run the stage `split` again")
    return joined


def _role_items(role: str, names: list[str], everything: dict[str, pd.DataFrame], layout: Layout) -> pd.DataFrame:
    """Items of the role's datasets that have what the role needs."""
    parts = []
    for dataset in names:
        items = everything[dataset]
        chosen = items[items["synthetic_edits"].isna()] if role == "unlabelled" else _labelled(items, role, layout)
        if chosen.empty:
            raise ValueError(f"data.roles.{role} names '{dataset}', which has nothing for it")
        parts.append(chosen)
    if not parts:
        return everything[min(everything)].iloc[:0]
    return pd.concat(parts, ignore_index=True)


def _labelled(items: pd.DataFrame, role: str, layout: Layout) -> pd.DataFrame:
    """Items with captions (generic), comments, a crowd's score (scores) or single raters' scores (raters)."""
    dataset = items["dataset"].iloc[0]
    if role in {"generic", "comments"}:
        rows = tables.comments(layout, dataset)
        rows = rows[(rows["aspect"] == "caption") == (role == "generic")]
    else:
        rows = tables.ratings(layout, dataset)
        rows = rows[rows["rater_id"].isna() == (role == "scores")]
    return items[items["item_id"].isin(rows["item_id"])]


def _counts(kept: pd.DataFrame, leaks: pd.DataFrame) -> dict[str, Any]:
    """Numbers of items by split, and of removed ones by reason."""
    reasons = leaks["reason"].value_counts()
    return {
        **{split: int((kept["split"] == split).sum()) for split in ("train", "validation", "test")},
        "removed": {reason: int(reasons.get(reason, 0)) for reason in ("id", "sha256", "group", "phash")},
    }


def count_leaked(folder: Path, roles: list[str], items: pd.DataFrame, distance: int) -> int:
    """Training items that leak, computed anew from the lists as they were written.

    Args:
        items: every item of every dataset, columns of ITEM with the split of the stage `split`.
    """
    written = pd.concat([read_table(folder / f"{role}.parquet", LIST) for role in roles]).drop_duplicates()
    train = written[written["split"] != "test"][["dataset", "item_id"]]
    test = items[items["split"] == "test"]
    return len(find_leaks(train.merge(items, on=["dataset", "item_id"], validate="1:1"), test, distance))
