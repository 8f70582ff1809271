"""The four sets in LLaVA's layout; what is said in them is made up."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from calm.data import SourceError
from calm.data.reading.conversations import ConversationSource, read_conversations
from calm.data.sources.aesmmit import AesMmit
from calm.data.sources.llava_instruct import LlavaInstruct
from calm.data.sources.llava_pretrain import LlavaPretrain
from calm.data.sources.sharegpt4v import FILES, ShareGpt4v
from tests.data.conftest import picture


def record(image: str | None, *turns: str) -> dict[str, Any]:
    """One record: turns of a person and the model, in turn."""
    said = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(turns)]
    return {"id": "x", **({"image": image} if image else {}), "conversations": said}


def place(root: Path, file: str, records: list[dict[str, Any]], folder: str = "images") -> Path:
    """The json, and its photographs below `folder`."""
    root.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(records), encoding="utf-8")
    for number, one in enumerate(records):
        if "image" in one:
            path = root / folder / one["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number, (48, 40)).save(path)
    return root


def comments(source: ConversationSource) -> pd.DataFrame:
    """Comments on all photographs that are there."""
    items = pd.DataFrame({"item_id": [one.item_id for one in source.photographs()]})
    return pd.DataFrame(source.comments(items))


def test_captions_of_llava_pretrain(tmp_path: Path) -> None:
    records = [
        record(f"0045{n}/0045{n}9375.jpg", "Describe it.\n<image>", f"a synthetic caption {n}") for n in range(3)
    ]
    root = place(tmp_path, "blip_laion_cc_sbu_558k.json", records)
    source = LlavaPretrain("llava_pretrain", {"root": str(root)}, 17)
    rows = comments(source)
    assert rows["item_id"].tolist() == [f"0045{n}/0045{n}9375" for n in range(3)]
    assert rows["text"].tolist() == [f"a synthetic caption {n}" for n in range(3)]
    assert set(rows["aspect"]) == {"caption"} and set(rows["origin"]) == {"synthetic_blip"}
    assert source.counts()["captions"] == source.counts()["images"] == source.counts()["records"] == 3


def test_photographs_may_stay_in_their_zip(tmp_path: Path) -> None:
    records = [record("00453/004539375.jpg", "<image>\nDescribe it.", "a synthetic caption")]
    root = place(tmp_path, "blip_laion_cc_sbu_558k.json", records)
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        archive.write(root / "images/00453/004539375.jpg", "00453/004539375.jpg")
    (root / "images/00453/004539375.jpg").unlink()
    source = LlavaPretrain("llava_pretrain", {"root": str(root)}, 17)
    (photograph,) = source.photographs()
    assert (photograph.item_id, photograph.name) == ("00453/004539375", "images.zip")
    assert photograph.read_bytes()[:2] == b"\xff\xd8"


def test_sharegpt4v_has_the_captions_that_settings_name(tmp_path: Path) -> None:
    for name, file in FILES.items():
        place(tmp_path, file, [record("coco/train2017/1.jpg", "<image>\nDescribe.", f"by {name}, synthetic")], "data")
    for name in FILES:
        source = ShareGpt4v("sharegpt4v", {"root": str(tmp_path), "captions": name}, 17)
        rows = comments(source)
        assert rows["text"].tolist() == [f"by {name}, synthetic"]
        assert rows["origin"].tolist() == [f"synthetic_{name.replace('-', '_')}"]


def test_turns_keep_their_questions_and_their_order(tmp_path: Path) -> None:
    records = [
        record("coco/train2017/1.jpg", "<image>\nWhat is it?", "A dog.", "Which colour?", "Brown."),
        record(None, "Tell me a story.", "Once."),
        record("vg/VG_100K/1.jpg", "What is it?\n<image>", "A cat.", "And where?"),
        record("coco/train2017/1.jpg", "<image>\nHow many?", "One."),
    ]
    root = place(tmp_path, "llava_v1_5_mix665k.json", records, "data")
    source = LlavaInstruct("llava_instruct", {"root": str(root)}, 17)
    rows = comments(source).set_index("comment_id")
    assert rows.loc["0.0", ["item_id", "text", "aspect"]].tolist() == ["coco/train2017/1", "A dog.", "qa:What is it?"]
    assert rows.loc["0.1", ["text", "aspect"]].tolist() == ["Brown.", "qa:Which colour?"]
    assert rows.loc["2.0", "item_id"] == "vg/VG_100K/1"  # the same file name as COCO's
    assert rows.loc["3.0", "item_id"] == "coco/train2017/1"
    assert len(rows) == 4
    counts = source.counts()
    assert (counts["images"], counts["records"], counts["without_image"]) == (2, 4, 1)
    names = {one.item_id: one.name for one in source.photographs()}
    assert names == {"coco/train2017/1": "data/coco/train2017/1.jpg", "vg/VG_100K/1": "data/vg/VG_100K/1.jpg"}


def test_answers_about_aesthetics_are_called_synthetic(tmp_path: Path) -> None:
    root = place(tmp_path, "AesMMIT_synthetic.json", [record("a/1.png", "<image>\nIs it sharp?", "Yes, it is.")])
    rows = comments(AesMmit("aesmmit", {"root": str(root)}, 17))
    assert rows[["aspect", "origin"]].to_numpy().tolist() == [["qa:Is it sharp?", "synthetic_gpt4"]]


def test_absent_photographs_are_told(tmp_path: Path) -> None:
    records = [record(f"00453/{n}.jpg", "<image>", "a caption") for n in range(2)]
    root = place(tmp_path, "blip_laion_cc_sbu_558k.json", records)
    (root / "images/00453/1.jpg").unlink()
    source = LlavaPretrain("llava_pretrain", {"root": str(root)}, 17)
    assert source.absent() == {"00453/1": "00453/1.jpg"}
    assert len(comments(source)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": "1", "image": "a.jpg"', "not a whole json list after record 0"),
        ('{"id": "1"}', "no list of records"),
        ("[]", "no list of records"),
        ('[{"image": "a.jpg"}]', "record 1: KeyError"),
        ('[{"image": "a.jpg", "conversations": [{"from": "human"}]}]', "record 1: KeyError"),
        ('["text"]', "record 1: AttributeError"),
        (json.dumps([record("a.jpg", "Hi", "Ho"), record("b.jpg", "Hi", "Ho") | {"image": "b.jpg"}])[:-2], "record 1"),
        (
            '[{"image": "a.jpg", "conversations": [{"from": "gpt", "value": "A"}, {"from": "human", "value": "B"}]}]',
            "record 1: turns are of 'gpt' and 'human'",
        ),
    ],
)
def test_a_wrong_record_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        read_conversations(path)


def test_a_tenth_of_all_captions_is_read_within_a_tenth_of_a_gigabyte(tmp_path: Path) -> None:
    count = LlavaPretrain.published["captions"] // 10
    path = tmp_path / "blip_laion_cc_sbu_558k.json"
    one = json.dumps(record("%05d/%09d.jpg", "<image>\nDescribe it.", "a synthetic caption"))
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        file.writelines(f"{',' if n else ''}{one % (n // 10_000, n)}" for n in range(count))
        file.write("]")
    found = read_conversations(path)
    assert (found.records, found.without_image, len(found.turns)) == (count, 0, count)
    assert found.turns["image"].nunique() == count
    assert found.turns.memory_usage(deep=True).sum() < 2**30 / 10
