"""Stage `filter_leakage`: no photograph of any test set is left in any training list, nor what people wrote about it.

Two items are one photograph if they share an id (in whatever dataset), the sha256 of their file, a group of the same
dataset, or if they look alike: scaled, recompressed, mirrored, slightly cropped (`near_duplicates`). A training item
that carries a test photograph's comment goes too. What goes takes all synthetic views of its photograph with it, and
leaves the lists of every role. How much of each kind is found: docs/benchmarks/leakage.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from calm.data.leakage import audit
from calm.data.leakage.near_duplicates import Looks, Positions, near_duplicates
from calm.data.settings import LeakageParams
from calm.data.store import tables
from calm.data.store.tables import LIST, REMOVED
from calm.data.store.text import HUMAN, answers, captions, critiques
from calm.io import atomic_dir, read_table, write_json, write_table
from calm.layout import Layout
from calm.params import Params

_COLUMNS = ("dataset", "item_id", "group", "sha256", "phash", "phash_mirrored", "synthetic_edits")
_TEXT_COLUMNS = ("item_id", "text_clean", "origin")
REASONS = ("id", "sha256", "group", "phash", "crop", "caption")
_DETAILS = ("distance", "correlation", "mirrored")


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


def filter_leakage(params: Params, layout: Layout) -> None:
    """Write one list per role, what was removed from them and why, and the counts.

    Raises:
        ValueError: a dataset named by a role has nothing for it.
    """
    corpus = load(layout, sorted(params.data.datasets))
    rules = params.data.leakage
    leaks = find_leaks(corpus, np.flatnonzero(~corpus.held_out), rules)
    with atomic_dir(layout.lists) as folder:
        removed, counts = [], {}
        for role, names in params.data.roles.model_dump().items():
            wanted = _role_items(role, sorted(names), corpus.items, layout)
            if role == "unlabelled":
                wanted = _well_taken(wanted, params.data.well_taken, layout)
            kept = wanted[~wanted.index.isin(leaks.index)]
            write_table(folder / f"{role}.parquet", kept[LIST.names].reset_index(drop=True), LIST)
            removed.append(leaks[leaks.index.isin(wanted.index)].assign(role=role))
            counts[role] = _counts(kept, removed[-1])
        write_table(folder / "removed.parquet", pd.concat(removed, ignore_index=True)[REMOVED.names], REMOVED)
        metrics = {**rules.model_dump(), "test_items": int(corpus.held_out.sum()), "roles": counts}
        write_json(folder / "leakage.json", {**metrics, **count_leaked(folder, list(counts), corpus, rules)})


def find_leaks(corpus: Corpus, train: Positions, rules: LeakageParams) -> pd.DataFrame:
    """Which of the items `train` show a photograph of the test set, or carry what was said about one.

    Returns:
        One row per leaked item, with its position as the index, ascending, and the columns of REMOVED but the role. A
        synthetic view whose photograph leaks has its photograph's row, and the other way round. Of several reasons the
        first in the order of REASONS is given (phash and crop: the nearer).
    """
    test = np.flatnonzero(corpus.held_out)
    items = corpus.items
    of_dataset = items["dataset"] + "\0" + items["group"]
    found = [
        _equal(items["photograph"], train, test, "id"),
        _equal(items["sha256"], train, test, "sha256"),
        _equal(of_dataset, train, test, "group"),
        _alike(corpus, train, test, rules),
        copied_texts(corpus.texts, pd.Index(train), pd.Index(test), rules.caption_words).assign(reason="caption"),
    ]
    direct = pd.concat(found, ignore_index=True).drop_duplicates("train")
    whole = _with_views(direct, items, train)
    there, here = items.iloc[whole["test"]], items.iloc[whole.index]
    columns = {
        "dataset": here["dataset"],
        "item_id": here["item_id"],
        "reason": whole["reason"],
        "test_dataset": there["dataset"].set_axis(whole.index),
        "test_item_id": there["item_id"].set_axis(whole.index),
    }
    details = {name: whole[name].astype(object).where(whole[name].notna(), None) for name in _DETAILS}
    return pd.DataFrame({**columns, **details})


def _equal(keys: pd.Series, train: Positions, test: Positions, reason: str) -> pd.DataFrame:
    """Leaks by equality of a key; of several test items the first is named."""
    first = keys.iloc[test].drop_duplicates()
    place = pd.Index(first).get_indexer(pd.Index(keys.iloc[train]))
    hit = place >= 0
    return pd.DataFrame({"train": train[hit], "test": first.index.to_numpy()[place[hit]], "reason": reason})


def _alike(corpus: Corpus, train: Positions, test: Positions, rules: LeakageParams) -> pd.DataFrame:
    """Leaks by looks."""
    pairs = near_duplicates(corpus.looks, train, test, rules.phash_distance, rules.correlation)
    pairs["reason"] = np.where(pairs["cropped"], "crop", "phash")
    return pairs.drop(columns="cropped").rename(columns={"left": "train", "right": "test"})


def copied_texts(texts: pd.DataFrame, train: pd.Index, test: pd.Index, words: int) -> pd.DataFrame:
    """Training items that have a text of a test item.

    Args:
        texts: columns item (a key of any kind), text_clean, origin.
        train, test: keys of items.
        words: short texts ("nice shot") are common property; a text of at least so many words is a copy.

    Returns:
        One row for each training item that has a copy, ordered by it: columns train, test (of several, the first in
        the order of `test`). Only what people wrote about the test photograph counts: a template says the same of many.
    """
    ours = texts.loc[texts["item"].isin(test) & (texts["origin"] == HUMAN), ["item", "text_clean"]]
    ours = ours.assign(key=normalised(ours["text_clean"], words).to_numpy()).dropna(subset=["key"])
    ours = ours.assign(place=test.get_indexer(pd.Index(ours["item"]))).sort_values("place").drop_duplicates("key")
    theirs = texts.loc[texts["item"].isin(train), ["item", "text_clean"]]
    theirs = theirs.assign(key=normalised(theirs["text_clean"], words).to_numpy())
    pairs = theirs.merge(ours, on="key", suffixes=("", "_test")).sort_values(["item", "place"])
    pairs = pairs.drop_duplicates("item", ignore_index=True)
    return pairs[["item", "item_test"]].rename(columns={"item": "train", "item_test": "test"})


def normalised(texts: pd.Series, words: int) -> pd.Series:
    """Texts in lower case, letters and digits alone, one blank between words; null where there are fewer words."""
    plain = pc.utf8_lower(pc.utf8_normalize(pa.array(texts, pa.large_string()), form="NFKC"))
    plain = pc.utf8_trim(pc.replace_substring_regex(plain, r"[^\pL\pN]+", " "), " ")
    enough = pc.and_(pc.greater_equal(pc.count_substring(plain, " "), words - 1), pc.not_equal(plain, ""))
    return pc.if_else(enough, plain, None).to_pandas()


def _with_views(direct: pd.DataFrame, items: pd.DataFrame, train: Positions) -> pd.DataFrame:
    """The leaks, and what shares a photograph with one: by position, one row each."""
    family = ["dataset", "photograph"]
    told = direct.assign(**{name: items[name].to_numpy()[direct["train"]] for name in family})
    everyone = items.loc[train, family].assign(train=train)
    inherited = everyone.merge(told.drop_duplicates(family).drop(columns="train"), on=family)
    both = pd.concat([direct, inherited[direct.columns]], ignore_index=True)
    return (
        both.drop_duplicates("train")
        .sort_values("train")
        .set_index("train")
        .reindex(columns=["test", "reason", *_DETAILS])
    )


def _role_items(role: str, names: list[str], items: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Items of the role's datasets that have what the role needs, with their positions as the index."""
    parts = [items.iloc[:0]]
    for dataset in names:
        own = items[items["dataset"] == dataset]
        chosen = own[own["synthetic_edits"].isna()] if role == "unlabelled" else _labelled(own, dataset, role, layout)
        if chosen.empty:
            raise ValueError(f"data.roles.{role} names '{dataset}', which has nothing for it")
        parts.append(chosen)
    return pd.concat(parts)


def _well_taken(items: pd.DataFrame, share: float, layout: Layout) -> pd.DataFrame:
    """Those of each dataset and split that people scored best, and all that only a program scored, or nobody.

    Self-supervision takes a photograph that it has not edited for one without the flaws that edits make. What people
    score lowest is often shaken, dark or tilted as it was taken.
    """
    if share == 1:
        return items
    ratings = pd.concat([tables.ratings(layout, dataset) for dataset in sorted(set(items["dataset"]))])
    crowd = ratings[ratings["rater_id"].isna() & (ratings["origin"] == HUMAN)].set_index(["dataset", "item_id"])
    scores = items.join(crowd["score"], on=["dataset", "item_id"])
    place = scores.groupby(["dataset", "split"])["score"].rank(pct=True, method="first")
    return items[~(place <= 1 - share)]


def _labelled(items: pd.DataFrame, dataset: str, role: str, layout: Layout) -> pd.DataFrame:
    """Items with captions (generic), comments, a crowd's score (scores) or single raters' scores (raters).

    Answers to questions count as captions and as comments.
    """
    if role in {"generic", "comments"}:
        rows = tables.comments(layout, dataset, ("item_id", "aspect"))
        rows = rows[answers(rows) | (captions(rows) if role == "generic" else critiques(rows))]
    else:
        rows = tables.ratings(layout, dataset, ("item_id", "rater_id"))
        rows = rows[rows["rater_id"].isna() == (role == "scores")]
    return items[items["item_id"].isin(rows["item_id"])]


def _counts(kept: pd.DataFrame, leaks: pd.DataFrame) -> dict[str, Any]:
    """Numbers of items by split, and of removed ones by reason."""
    return {
        **{split: int((kept["split"] == split).sum()) for split in ("train", "validation", "test")},
        "removed": {reason: int((leaks["reason"] == reason).sum()) for reason in REASONS},
    }


def count_leaked(folder: Path, roles: list[str], corpus: Corpus, rules: LeakageParams) -> dict[str, int]:
    """Items that are left in training lists though they leak, computed anew from the lists as they were written.

    Returns:
        leaked_after: how many, by this module's search or by `audit`'s; audited: items whose looks the audit compared
        with those of all test items.
    """
    written = pd.concat([read_table(folder / f"{role}.parquet", LIST) for role in roles]).drop_duplicates()
    listed = written[written["split"] != "test"]
    keys = pd.MultiIndex.from_frame(corpus.items[["dataset", "item_id"]])
    train = np.sort(keys.get_indexer(pd.MultiIndex.from_frame(listed[["dataset", "item_id"]])))
    searched = find_leaks(corpus, train, rules).index
    audited, leaking = audit.leaking(corpus, train, rules)
    return {"leaked_after": len(searched.union(leaking)), "audited": audited}
