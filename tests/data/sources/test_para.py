"""PARA: the authors' layout and a part of it; rows are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm.data import SourceError
from calm.data.prepare import prepare
from calm.data.sources import fetch
from calm.data.sources.para import Para
from calm.data.store.tables import items, ratings
from calm.layout import Layout
from tests.data.conftest import MakeParams, picture

STEPS = ",".join(f"aestheticScore_{step / 2:.1f}" for step in range(2, 11))
VOTES = {
    "iaa_pub1_.jpg": "0,0,1,0,3,0,1,0,0",
    "iaa_pub2_.jpg": "0,0,0,0,0,0,4,0,1",
    "iaa_pub3_.jpg": "1,0,0,0,1,0,0,0,0",
}
MEANS = {"iaa_pub1_.jpg": 3.0, "iaa_pub2_.jpg": 4.2, "iaa_pub3_.jpg": 2.0}
SPLIT = {"iaa_pub1_.jpg": "Train", "iaa_pub2_.jpg": "Train", "iaa_pub3_.jpg": "Test"}


def source(root: Path) -> Para:
    return Para("para", {"root": str(root)}, 17)


def official(root: Path, **changed: str) -> Path:
    """The authors' layout; `changed` replaces lines of the training table by photograph."""
    (root / "annotation").mkdir(parents=True)
    for split in ("Train", "Test"):
        rows = [
            changed.get(Path(name).stem, f"session1,{name},{votes},{MEANS[name]},0.6")
            for name, votes in VOTES.items()
            if SPLIT[name] == split
        ]
        header = f"sessionId,imageName,{STEPS},aestheticScore_mean,aestheticScore_std"
        (root / f"annotation/PARA-Giaa{split}.csv").write_text("\n".join([header, *rows]) + "\n")
    told = ["session1,iaa_pub1_.jpg,A1,3.5", "session1,iaa_pub1_.jpg,A2,2.5", "session1,iaa_pub3_.jpg,A1,1.0"]
    text = "\n".join(["sessionId,imageName,userId,aestheticScore", *told])
    (root / "annotation/PARA-Images.csv").write_text(text + "\n")
    for number, name in enumerate(VOTES):
        (root / "imgs/session1").mkdir(parents=True, exist_ok=True)
        picture(number, (256, 192)).save(root / "imgs/session1" / name)
    return root


def test_the_authors_layout_gives_votes_persons_and_the_official_split(tmp_path: Path, make_params: MakeParams) -> None:
    root = official(tmp_path / "para")
    params, place = make_params({"para": {"root": str(root)}}, {"scores": ["para"]}), Layout(tmp_path / "out")
    fetch("para", params, place)
    prepare("para", params, place)
    split = items(place, "para").set_index("item_id")["split"]
    assert split.to_dict() == {"iaa_pub1_": "train", "iaa_pub2_": "train", "iaa_pub3_": "test"}
    found = ratings(place, "para")
    crowd = found[found["rater_id"].isna()].set_index("item_id")
    assert crowd["score"].to_dict() == {Path(name).stem: mean for name, mean in MEANS.items()}
    assert list(crowd.loc["iaa_pub1_", "votes"]) == [0, 0, 1, 0, 3, 0, 1, 0, 0]
    assert crowd.loc["iaa_pub1_", "n"] == 5
    single = found[found["rater_id"].notna()]
    assert sorted(zip(single["item_id"], single["rater_id"], single["score"], strict=True)) == [
        ("iaa_pub1_", "A1", 3.5),
        ("iaa_pub1_", "A2", 2.5),
        ("iaa_pub3_", "A1", 1.0),
    ]
    counts = {"images": 3, "train": 2, "test": 1, "scored": 3, "ratings": 3, "raters": 2}
    assert counts.items() <= source(root).counts().items()


def test_a_part_of_the_set_is_training_photographs(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "items.csv").write_text("file,session,mean,n\niaa_pub1_.jpg,session1,2.32,25\n")
    picture(1, (256, 192)).save(tmp_path / "images/iaa_pub1_.jpg")
    found = source(tmp_path)
    (photograph,) = found.photographs()
    assert (photograph.item_id, photograph.split, photograph.split_rule) == ("iaa_pub1_", None, None)
    assert found.scores.loc["iaa_pub1_", ["score", "n"]].tolist() == [2.32, 25]


def test_shares_are_no_votes(tmp_path: Path) -> None:
    shares = "session1,iaa_pub1_.jpg,0,0,.2,0,.6,0,.2,0,0,3.0,0.6"
    scores = source(official(tmp_path, iaa_pub1_=shares)).scores
    assert scores.loc["iaa_pub1_", "score"] == 3.0
    assert scores.loc["iaa_pub1_", "votes"] is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "session1,iaa_pub1_.jpg,0,0,1,0,3,0,1,0,0,5.5,0",
            r"line 2, column 'aestheticScore_mean': '5.5' is not a number",
        ),
        ("session1,iaa_pub2_.jpg,0,0,1,0,3,0,1,0,0,3.5,0", r"line 3, column 'imageName': 'iaa_pub2_' is in line 2"),
        ("session1,iaa_pub3_.jpg,0,0,1,0,3,0,1,0,0,3.5,0", r"'iaa_pub3_' is in"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        _ = source(official(tmp_path, iaa_pub1_=row)).scores
