"""No photograph of a test set is left in a training list: planted leaks of every kind are found and taken out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from calm.data import tables
from calm.data.leakage import filter_leakage, find_leaks, hash_matches
from calm.data.prepare import perceptual_hash, prepare
from calm.data.schema import SPLIT
from calm.data.sources import fetch
from calm.data.splits import split
from calm.io import write_table
from calm.layout import Layout
from calm.params import Params
from tests.data.conftest import MakeParams, picture


def row(item_id: str, seed: int, dataset: str = "d", **changes: str) -> dict[str, str]:
    """An item with the hashes of a picture."""
    image = picture(seed)
    hashes = {"phash": perceptual_hash(image), "phash_mirrored": perceptual_hash(ImageOps.mirror(image))}
    return {"dataset": dataset, "item_id": item_id, "group": item_id, "sha256": f"sha-{item_id}", **hashes, **changes}


def bits_apart(left: str, right: str) -> int:
    return (int(left, 16) ^ int(right, 16)).bit_count()


def still_leaks(train: pd.DataFrame, test: pd.DataFrame, distance: int) -> list[tuple[str, str]]:
    """An independent check, pair by pair, in plain Python."""
    found = []
    for one in train.to_dict("records"):
        for other in test.to_dict("records"):
            same_group = (one["dataset"], one["group"]) == (other["dataset"], other["group"])
            near = min(bits_apart(one["phash"], other["phash"]), bits_apart(one["phash"], other["phash_mirrored"]))
            same_id = one["item_id"].split("#")[0] == other["item_id"].split("#")[0]
            if same_id or one["sha256"] == other["sha256"] or same_group or near <= distance:
                found.append((one["item_id"], other["item_id"]))
    return found


@pytest.fixture
def planted() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test items with one leak of each kind, and views of leaked photographs."""
    test = pd.DataFrame(
        [row("t1", 1), row("t2", 2), row("t3", 3, group="shoot"), row("t4#v01", 4), row("953", 5, "ava")]
    )
    smaller = perceptual_hash(picture(4).resize((80, 60)))
    mirrored = perceptual_hash(ImageOps.mirror(picture(2)))
    train = pd.DataFrame(
        [
            row("953", 50, "captions"),
            row("t4", 51),
            row("copy", 52, "other", sha256="sha-t1"),
            row("shot", 53, group="shoot"),
            row("shot-elsewhere", 54, "other", group="shoot"),
            row("smaller", 55, "other", phash=smaller),
            row("smaller#v00", 56, "other", group="smaller"),
            row("mirrored", 57, "other", phash=mirrored),
            *(row(f"clean{number}", 100 + number) for number in range(20)),
        ]
    )
    return train, test


def test_planted_leaks_are_found_with_their_reason(planted: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    train, test = planted
    leaks = find_leaks(train, test, 6).set_index("item_id")
    assert leaks["reason"].to_dict() == {
        "953": "id",
        "t4": "id",
        "copy": "sha256",
        "shot": "group",
        "smaller": "phash",
        "smaller#v00": "phash",
        "mirrored": "phash",
    }
    assert leaks.loc["smaller", "test_item_id"] == "t4#v01"
    assert leaks.loc["mirrored", "test_item_id"] == "t2"
    assert leaks.loc["953", "test_dataset"] == "ava"
    assert leaks.loc["mirrored", "distance"] <= 6
    assert leaks.loc["copy", "distance"] is None


def test_an_independent_check_finds_nothing_afterwards(planted: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    train, test = planted
    assert len(still_leaks(train, test, 6)) >= 6
    for distance in (0, 6, 14):
        leaks = find_leaks(train, test, distance)
        kept = train[~train["item_id"].isin(leaks["item_id"])]
        assert still_leaks(kept, test, distance) == []
        assert len(kept) >= 15


def test_hashes_are_compared_exactly_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calm.data.leakage._BLOCK", 64)
    rng = np.random.default_rng(0)
    right = rng.integers(0, 2**64, 37, dtype=np.uint64)
    left = right[rng.integers(0, 37, 101)]
    for bit in range(9):  # up to nine bits flipped
        left = left ^ (rng.integers(0, 2, 101, dtype=np.uint64) << np.uint64(7 * bit))
    for distance in (0, 4, 9):
        position, nearest = hash_matches(left, right, distance)
        for number, value in enumerate(left):
            gaps = [(int(value) ^ int(other)).bit_count() for other in right]
            assert nearest[number] == min(gaps)
            assert position[number] == (gaps.index(min(gaps)) if min(gaps) <= distance else -1)


def test_no_test_items_means_no_leaks() -> None:
    train = pd.DataFrame([row("a", 1)])
    assert find_leaks(train, train.iloc[:0], 6).empty


def filtered(params: Params, layout: Layout) -> dict[str, object]:
    """Run the stages up to the filter; return its metrics."""
    for dataset in params.data.datasets:
        fetch(dataset, params, layout)
        prepare(dataset, params, layout)
    split(params, layout)
    filter_leakage(params, layout)
    metrics: dict[str, object] = json.loads((layout.lists / "leakage.json").read_text(encoding="utf-8"))
    return metrics


def test_the_stage_takes_planted_copies_out_of_every_list(scored: Path, scored_params: Params, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "first")
    filtered(scored_params, layout)
    held_out = tables.splits(layout, "local").query("split == 'test'")["item_id"].iloc[0]
    original = next(scored.glob(f"{held_out}.*"))
    (scored / "same-bytes.png").write_bytes(original.read_bytes())
    with Image.open(original) as image:
        ImageOps.mirror(image.convert("RGB")).save(scored / "turned.jpg", quality=70)
    lines = (scored / "scores.csv").read_text(encoding="utf-8") + "same-bytes.png,3,,\nturned.jpg,3,,\n"
    (scored / "scores.csv").write_text(lines, encoding="utf-8")

    layout = Layout(tmp_path / "second")
    fetch("local", scored_params, layout)
    prepare("local", scored_params, layout)
    known = tables.items(layout, "local")["item_id"]
    chosen = ["test" if item_id == held_out else "train" for item_id in known]
    frame = pd.DataFrame({"dataset": "local", "item_id": known, "split": chosen, "rule": "planted"})
    write_table(layout.splits / "local.parquet", frame, SPLIT)
    filter_leakage(scored_params, layout)
    removed = tables.removed(layout)
    for role in ("unlabelled", "scores"):
        reasons = removed[removed["role"] == role].set_index("item_id")["reason"].to_dict()
        assert reasons == {"same-bytes": "sha256", "turned": "phash"}
        listed = tables.role_list(layout, role)
        train = listed[listed["split"] == "train"].merge(tables.items(layout, "local").drop(columns="split"))
        test = tables.items(layout, "local").query("item_id == @held_out")
        assert len(train) == 11
        assert still_leaks(train, test, 6) == []
    metrics = json.loads((layout.lists / "leakage.json").read_text(encoding="utf-8"))
    assert metrics["leaked_after"] == 0
    assert metrics["roles"]["scores"] == {
        "train": 11,
        "validation": 0,
        "test": 1,
        "removed": {"id": 0, "sha256": 1, "group": 0, "phash": 1},
    }


def test_leaks_that_were_not_filtered_are_counted(
    scored: Path, scored_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figure leaked_after is no constant: with a filter that finds nothing the first time, it is not 0."""
    for number in range(11):
        (scored / f"p{number:02d}.png").write_bytes((scored / "p00.png").read_bytes())
    calls = []

    def blind(train: pd.DataFrame, test: pd.DataFrame, distance: int) -> pd.DataFrame:
        calls.append(len(train))
        return find_leaks(train, test if len(calls) > 1 else test.iloc[:0], distance)

    monkeypatch.setattr("calm.data.leakage.find_leaks", blind)
    assert filtered(scored_params, Layout(tmp_path))["leaked_after"]


def test_lists_hold_what_their_role_needs(few_photos: Path, make_params: MakeParams, tmp_path: Path) -> None:
    roles = {role: ["photos"] for role in tables.ROLES}
    settings = {"views": 2, "max_edits": 2, "raters": 2, "ratings_per_rater": 8, "comments": 1}
    layout = Layout(tmp_path)
    metrics = filtered(make_params({"photos": settings}, roles), layout)
    assert metrics["leaked_after"] == 0
    lists = {role: tables.role_list(layout, role) for role in tables.ROLES}
    for role in ("unlabelled", "generic"):
        assert len(lists[role]) == 8
        assert not lists[role]["item_id"].str.contains("#").any()
    assert len(lists["comments"]) == len(lists["scores"]) == 24
    given = tables.ratings(layout, "photos")
    assert set(lists["raters"]["item_id"]) == set(given.loc[given["rater_id"].notna(), "item_id"])
    for frame in lists.values():
        assert {"train", "test"} <= set(frame["split"])


def test_a_role_that_a_dataset_cannot_serve_is_an_error(folder: Path, make_params: MakeParams, tmp_path: Path) -> None:
    settings = {"root": str(folder), "licence": "test"}
    params = make_params({"local": settings}, {"unlabelled": ["local"], "scores": ["local"]})
    with pytest.raises(ValueError, match=r"data\.roles\.scores names 'local', which has nothing for it"):
        filtered(params, Layout(tmp_path))
    assert not Layout(tmp_path).lists.exists()
