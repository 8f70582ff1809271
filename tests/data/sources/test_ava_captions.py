"""AVA-Captions: three layouts of comments, and a split that no AVA test photograph gets into."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from calm.data import SourceError
from calm.data.prepare import prepare
from calm.data.sources import fetch
from calm.data.sources.ava import Ava
from calm.data.sources.ava_captions import (
    CLEANED,
    COMMENTS,
    TEST_RULE,
    TRAIN_RULE,
    VALIDATION,
    AvaCaptions,
    read_coco,
    read_comments,
    read_karpathy,
)
from calm.data.store.tables import comments, items
from calm.layout import Layout
from tests.data import full_size
from tests.data.conftest import MakeParams, picture


def source(root: Path, **settings: Any) -> AvaCaptions:
    """AVA-Captions in root/captions, AVA in root/ava."""
    return AvaCaptions("ava_captions", {"root": str(root / "captions"), "ava": str(root / "ava"), **settings}, 0)


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, list[str]]:
    """Folder and photographs: of 60 the first 50 have comments, 0-9 are test ones here, 5-14 of AVA."""
    votes = full_size.synthetic_votes(60)
    ids = votes.index.tolist()
    full_size.write_ava(tmp_path / "ava", votes, ids[5:15])
    full_size.write_ava_captions(tmp_path / "captions", ids[:50], ids[:10])
    return tmp_path, ids


def write_raw(root: Path, lines: list[str]) -> None:
    """The raw comments in place of the json."""
    (root / "captions" / CLEANED).unlink(missing_ok=True)
    (root / "captions" / COMMENTS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_training_has_neither_its_own_nor_avas_test_photographs(world: tuple[Path, list[str]]) -> None:
    root, ids = world
    found = {one.item_id: (one.split, one.split_rule) for one in source(root).photographs()}
    assert {one for one, (split, _) in found.items() if split == "test"} == set(ids[:10])
    assert {one for one, (split, _) in found.items() if split == "train"} == set(ids[15:50])
    assert {rule for _, rule in found.values()} == {TEST_RULE, TRAIN_RULE}
    counts = source(root).counts()
    assert (counts["train"], counts["test"], counts["ava_test_left_out"]) == (35, 10, 5)


def test_test_photographs_have_the_captions_of_the_validation_file_alone(world: tuple[Path, list[str]]) -> None:
    root, ids = world
    rows = source(root).comments(pd.DataFrame({"item_id": ids}))
    assert rows["item_id"].value_counts().to_dict() == dict.fromkeys(ids[:10], 1) | dict.fromkeys(ids[15:50], 5)
    assert rows["comment_id"].is_unique
    assert f"{ids[20]}/4" in set(rows["comment_id"])
    assert set(rows["origin"]) == {"human"}


def test_clean_and_raw_texts_are_a_choice(world: tuple[Path, list[str]]) -> None:
    root, ids = world
    one = pd.DataFrame({"item_id": [ids[20]]})
    clean, raw = (source(root, text=text).comments(one)["text"].tolist() for text in ("clean", "raw"))
    assert [f"{text.capitalize()}!" for text in clean] == raw


def test_raw_comments_are_read_where_there_is_no_json(world: tuple[Path, list[str]]) -> None:
    root, ids = world
    lines = [f"{number}#{one}#Nice light.#  #Très doux!" for number, one in enumerate(ids[:50])]
    write_raw(root, [*lines, "50#nobody#no photograph of this number", "51"])
    with pytest.raises(SourceError, match=r"as they were written; set data\.datasets\.ava_captions\.text to raw"):
        source(root).counts()
    counts = source(root, text="raw").counts()
    assert (counts["train"], counts["test"], counts["comments"], counts["lines_left_out"]) == (35, 10, 35 * 2 + 10, 2)
    said = source(root, text="raw").comments(pd.DataFrame({"item_id": [ids[20]]}))
    assert said["text"].tolist() == ["Nice light.", "Très doux!"]


def test_the_samples_are_read() -> None:
    cleaned = full_size.samples("ava-captions", "CLEAN_AVA_FULL_AFTER_SUBJECTIVE_CLEANING.SYNTHETIC.json")
    text = "lovely soft light but the horizon is tilted"
    assert read_karpathy(cleaned, "clean").to_dict("records") == [{"item_id": "100001", "text": text}]
    images, said = read_coco(full_size.samples("ava-captions", "AVA_FULL_VALIDATION.SYNTHETIC.json"))
    assert images == {"100002"}
    assert said["text"].tolist() == ["the subject is slightly out of focus"]
    raw, without = read_comments(full_size.samples("ava-captions", "AVA_Comments_Full.SYNTHETIC.txt"))
    assert raw.groupby("item_id").size().to_dict() == {"100001": 2, "100002": 1}
    assert without == 0
    food = read_karpathy(full_size.samples("karpathy", "food_iac_composition.head5.json"), "raw")
    assert len(food) >= 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [{"filename": "1.jpg", "sentences": [', r"CLEAN.*json: not a whole json"),
        ('{"images": [{"filename": "1.jpg"}]}', r"CLEAN.*json, entry 1: no filename and sentences with 'clean'"),
        ('{"images": [{"filename": "1.jpg", "sentences": [{"raw": "x"}]}]}', r"entry 1: .*'clean'"),
        ('{"images": [{"filename": "1.jpg", "sentences": [{"clean": null}]}]}', r"the caption of '1\.jpg' is no text"),
        (
            '{"images": [{"filename": "a.jpg", "sentences": [{"clean": "x"}]}]}',
            r"'a\.jpg' is not a photograph's number",
        ),
        ('{"pictures": []}', r"CLEAN.*json: no captions in it"),
        ("<html>", r"not a whole json"),
    ],
)
def test_a_json_that_is_none_is_refused(world: tuple[Path, list[str]], content: str, message: str) -> None:
    root, _ = world
    (root / "captions" / CLEANED).write_text(content)
    with pytest.raises(SourceError, match=message):
        source(root).counts()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{"id": 1}]}, r"AVA_FULL_VALIDATION\.json: not a json with images and annotations"),
        ({"images": [{"id": "x"}], "annotations": []}, r"AVA_FULL_VALIDATION\.json: not a json with images"),
        (
            {"images": [{"id": 1}], "annotations": [{"image_id": 2, "caption": "x"}]},
            r"annotation 0: its image_id 2 is none of the images",
        ),
    ],
)
def test_a_wrong_validation_file_is_refused(
    world: tuple[Path, list[str]], content: Mapping[str, Any], message: str
) -> None:
    root, _ = world
    (root / "captions" / VALIDATION).write_text(json.dumps(content))
    with pytest.raises(SourceError, match=message):
        source(root).counts()


def test_missing_files_are_named_with_the_way_to_get_them(world: tuple[Path, list[str]]) -> None:
    root, _ = world
    (root / "captions" / VALIDATION).unlink()
    with pytest.raises(SourceError, match=r"has none of \*\*/AVA_FULL_VALIDATION\.json\. AVA-C.*Ask the authors"):
        list(source(root).files())
    with pytest.raises(SourceError, match=r"nowhere is not a folder\. AVA: "):
        list(source(root, ava=str(root / "nowhere")).files())


def test_order_of_records_changes_nothing(world: tuple[Path, list[str]]) -> None:
    root, ids = world
    first = source(root)
    expected, split = first.comments(pd.DataFrame({"item_id": ids})), list(first.splits().items())
    path = root / "captions" / CLEANED
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "images": content["images"][::-1]}))
    second = source(root)
    pd.testing.assert_frame_equal(second.comments(pd.DataFrame({"item_id": ids})), expected)
    assert list(second.splits().items()) == split


def test_photographs_come_from_avas_folder(
    tmp_path: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes = full_size.synthetic_votes(6)
    ids = votes.index.tolist()
    full_size.write_ava(tmp_path / "ava", votes, ids[3:4], images=False)
    for number, one in enumerate(ids):
        picture(number).save(tmp_path / "ava" / f"{one}.jpg")
    full_size.write_ava_captions(tmp_path / "captions", ids, ids[:2])
    monkeypatch.setattr(Ava, "obtain", ())  # the test list is not the published one
    settings = {"root": str(tmp_path / "captions"), "ava": str(tmp_path / "ava")}
    params, place = make_params({"ava_captions": settings}, {"comments": ["ava_captions"]}), Layout(tmp_path / "out")
    fetch("ava_captions", params, place)
    prepare("ava_captions", params, place)
    found = items(place, "ava_captions")
    assert dict(zip(found["item_id"], found["split"], strict=True)) == {
        one: "test" if one in ids[:2] else "train" for one in ids if one != ids[3]
    }
    assert set(comments(place, "ava_captions")["item_id"]) == set(found["item_id"])


def test_full_size(tmp_path: Path) -> None:
    """230,000 records on AVA's photographs: training is the rest minus both test sets, counted apart here."""
    votes = full_size.synthetic_votes()
    ids = votes.index.tolist()
    test = full_size.synthetic_test_list(votes, full_size.AVA_TEST_LISTED, full_size.AVA_TEST)
    full_size.write_ava(tmp_path / "ava", votes, test)
    own = ids[: full_size.CAPTIONS_TEST]
    full_size.write_ava_captions(tmp_path / "captions", ids[: full_size.CAPTIONS], own, sentences=2)
    found = source(tmp_path)
    splits = Counter(split for split, _ in found.ava.splits().values())
    assert splits == {split: found.ava.published[split] for split in ("train", "test")}
    train = set(ids[: full_size.CAPTIONS]) - set(own) - set(test)
    counts = found.counts()
    assert counts["test"] == found.published["test"] == full_size.CAPTIONS_TEST
    assert counts["train"] == len(train)
    assert counts["train"] + counts["ava_test_left_out"] + counts["test"] == full_size.CAPTIONS
    assert abs(counts["train"] - found.published["train"]) < 10_000, "about 210,000"
    assert counts["comments"] == 2 * len(train) + len(own)
