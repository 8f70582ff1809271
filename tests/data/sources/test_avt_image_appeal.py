"""AVT-ImageAppeal: the authors' layout, whose experiments add up, and a part of it; rows are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm.data import SourceError
from calm.data.sources.avt_image_appeal import AvtImageAppeal
from tests.data.conftest import picture

HEADER = "filename,std,mos,num_ratings,count_1,count_2,count_3,count_4,count_5,type"


def source(root: Path) -> AvtImageAppeal:
    return AvtImageAppeal("avt_image_appeal", {"root": str(root)}, 17)


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number, (96, 80)).save(path)


def test_votes_of_all_experiments_add_up_and_other_sets_names_stay(tmp_path: Path) -> None:
    rows = [
        "static/images/ava/medium/953619.jpg,1,2.5,2,0,1,1,0,0,click",
        "static/images/ava/medium/953619.jpg,1,5,1,0,0,0,0,1,lab",
        "static/images/own/medium/953619.jpg,1,1,1,1,0,0,0,0,click",
    ]
    (tmp_path / "all_test.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    for number, (subset, size) in enumerate((s, size) for s in ("ava", "own") for size in ("small", "medium")):
        draw(tmp_path / f"images_data/{subset}/{size}/953619.jpg", number)
    found = source(tmp_path)
    assert found.scores[["score", "n"]].to_dict("index") == {
        "953619": {"score": 10 / 3, "n": 3},
        "own__953619": {"score": 1.0, "n": 1},
    }
    assert found.scores.loc["953619", "votes"] == [0, 1, 1, 0, 1]
    assert {one.item_id: one.path.parts[-3:] for one in found.photographs()} == {
        "953619": ("ava", "medium", "953619.jpg"),
        "own__953619": ("own", "medium", "953619.jpg"),
    }


def test_a_part_of_the_set_is_read(tmp_path: Path) -> None:
    header = "file,source,mean,n,votes1,votes2,votes3,votes4,votes5"
    (tmp_path / "items.csv").write_text(f"{header}\nown__a_b.png,own,2.0,2,1,0,1,0,0\n")
    draw(tmp_path / "images/own__a_b.png", 1)
    found = source(tmp_path)
    (photograph,) = found.photographs()
    assert (photograph.item_id, photograph.split) == ("own__a_b", None)
    assert found.scores.loc["own__a_b", "score"] == 2.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,1,1,1,1,0,0,0,0,click", "line 2, column 'filename': 'a.jpg' is no photograph of a subset"),
        (
            "static/images/own/medium/a.jpg,1,1,1,-1,0,0,0,0,click",
            "line 2, column 'count_1': '-1' is not a whole number",
        ),
        (
            "static/images/own/medium/a.jpg,1,1,1,0,0,0,0,0,click",
            "line 2, column 'count_1': '0' and the others count no",
        ),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "all_test.csv").write_text(f"{HEADER}\n{row}\n")
    with pytest.raises(SourceError, match=message):
        _ = source(tmp_path).scores
