"""PCCD: critiques by aspect; the texts are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from calm.data import SourceError
from calm.data.sources.pccd import ASPECTS, Pccd, read_critiques
from tests.data.conftest import picture


def critique(name: str, overall: str | None = "9.1", **texts: str) -> dict[str, Any]:
    """One entry of the json; aspects that are not given are empty."""
    return {"title": name, "overall": overall, "description": "I took it", **dict.fromkeys(ASPECTS, ""), **texts}


def pccd(root: Path, **splits: list[dict[str, Any]]) -> Pccd:
    """The source on these critiques, with photographs of all of them."""
    (root / "images" / "full").mkdir(parents=True, exist_ok=True)
    for split, entries in splits.items():
        (root / (f"guru_{split}.json" if split != "raw" else "raw.json")).write_text(json.dumps(entries))
        for number, entry in enumerate(entries):
            picture(number, (48, 40)).save(root / "images" / "full" / f"{entry['title'].removesuffix('.jpg')}.jpg")
    return Pccd("pccd", {"root": str(root)}, 17)


def items(source: Pccd) -> pd.DataFrame:
    return pd.DataFrame({"item_id": [one.item_id for one in source.photographs()]})


def test_critiques_become_comments_by_aspect_and_scores(tmp_path: Path) -> None:
    source = pccd(
        tmp_path,
        train=[critique("12_tart", general_impression="A feast.", focus="On the cherry!"), critique("3_v.2.jpg", None)],
        validation=[critique("7_fog", composition="Centred.")],
        test=[critique("9_bird", "6", color_lighting="Warm."), critique("9_bird", "8", color_lighting="Flat.")],
    )
    rows = source.comments(items(source)).set_index("comment_id")
    assert rows.loc["12_tart/0/focus", ["text", "aspect"]].tolist() == ["On the cherry!", "focus"]
    assert pd.isna(rows.loc["12_tart/0/general_impression", "aspect"])
    assert rows.loc["9_bird/1/color_lighting", "text"] == "Flat."
    assert len(rows) == 5 and set(rows["origin"]) == {"human"}
    rated = source.ratings(items(source)).set_index("item_id")
    assert rated.loc["9_bird", ["score", "n"]].tolist() == [7, 2]
    assert "3_v.2" not in rated.index
    splits = {one.item_id: one.split for one in source.photographs()}
    assert splits == {"12_tart": "train", "3_v.2": "train", "7_fog": "validation", "9_bird": "test"}


def test_one_file_without_a_split(tmp_path: Path) -> None:
    source = pccd(tmp_path, raw=[critique("1_a", focus="Soft.")])
    assert [one.split for one in source.photographs()] == [None]


def test_names_of_people_are_not_kept(tmp_path: Path) -> None:
    entry = critique("1_a", focus="Soft.") | {"reviewer": "Synthetic Person", "photographer": "Other Person"}
    source = pccd(tmp_path, raw=[entry])
    told = source.comments(items(source)).to_json() + source.ratings(items(source)).to_json()
    assert "Person" not in told


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (critique("1_a", "11"), r"entry 1 \('1_a'\), 'overall': '11' is not a number in 1\.\.10"),
        (critique("1_a", "good"), r"entry 1 \('1_a'\), 'overall': 'good' is not a number"),
        (critique(""), r"entry 1: no 'title' or 'im_name'"),
        ({"title": "1_a", "overall": "5"}, r"entry 1 \('1_a'\): no key 'general_impression'"),
        ("text", "entry 1: no critique"),
    ],
)
def test_a_wrong_entry_is_named(entry: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "raw.json").write_text(json.dumps([entry]))
    with pytest.raises(SourceError, match=r"raw\.json, " + message):
        read_critiques(tmp_path / "raw.json")


def test_broken_and_partial_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw.json").write_text('[{"title": ')
    with pytest.raises(SourceError, match="not JSON"):
        read_critiques(tmp_path / "raw.json")
    with pytest.raises(SourceError, match=r"has no guru_validation\.json beside the others"):
        list(pccd(tmp_path, train=[critique("1_a")], test=[critique("2_b")]).files())
    both = pccd(tmp_path, train=[critique("1_a")], validation=[critique("2_b")], test=[critique("1_a")])
    with pytest.raises(SourceError, match="'1_a' is in two of train, validation, test"):
        list(both.files())


def test_sample_of_pccd(formats: Path) -> None:
    found = read_critiques(formats / "pccd" / "guru_test.masked2.json")
    assert found["item_id"].tolist() == ["12_choc-cherry-tart", "14_purple-flower"]
    assert found["score"].tolist() == [9.1, 6.9]
