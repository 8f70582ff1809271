"""EVA: votes separated by `=`, crowd and single people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calm.data import SourceError
from calm.data.prepare import prepare
from calm.data.sources import fetch
from calm.data.sources.eva import VOTES, Eva, read_votes
from calm.data.store.tables import items, ratings
from calm.layout import Layout
from tests.data import full_size
from tests.data.conftest import MakeParams, picture

HEADER = "image_id=user_id=score=difficulty=visual=composition=quality=semantic=vote_time=1=2=3=4"
REST = "3=3=3=4=3=12.5=1=0=0=1"


def write(root: Path, votes: list[tuple[str, str, str]]) -> Path:
    """votes_filtered.csv where the repository has it."""
    (root / "data").mkdir(parents=True, exist_ok=True)
    lines = [f"{image}={user}={score}={REST}" for image, user, score in votes]
    (root / "data" / VOTES).write_text("\n".join([HEADER, *lines]) + "\n")
    return root


def test_crowd_and_single_votes_are_ratings(tmp_path: Path, make_params: MakeParams) -> None:
    root = write(tmp_path / "eva", [("71", "E1", "7"), ("71", "E2", "4"), ("106", "E1", "10"), ("9", "E1", "0")])
    folder = root / "images" / "EVA_together"
    folder.mkdir(parents=True)
    for number, name in enumerate(("71", "106", "5000")):  # 9 is missing, nobody voted on 5000
        picture(number).save(folder / f"{name}.jpg")
    params, place = make_params({"eva": {"root": str(root)}}, {"scores": ["eva"]}), Layout(tmp_path / "out")
    fetch("eva", params, place)
    prepare("eva", params, place)
    assert items(place, "eva")["item_id"].tolist() == ["106", "71"]
    assert items(place, "eva")["split"].isna().all()
    given = ratings(place, "eva")
    crowd = given[given["rater_id"].isna()].set_index("item_id")
    assert crowd["score"].to_dict() == {"71": 5.5, "106": 10.0}
    assert crowd.loc["71", "votes"].tolist() == [0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0]
    assert crowd["n"].to_dict() == {"71": 2, "106": 1}
    single = given[given["rater_id"].notna()]
    assert sorted(single[["item_id", "rater_id", "score"]].to_numpy().tolist()) == [
        ["106", "E1", 10.0],
        ["71", "E1", 7.0],
        ["71", "E2", 4.0],
    ]
    assert set(zip(given["score_min"], given["score_max"], strict=True)) == {(0.0, 10.0)}


@pytest.mark.parametrize(
    ("vote", "message"),
    [
        (("71", "E2", "11"), r"votes_filtered\.csv, line 3, column 'score': '11' is not a whole number in 0\.\.10"),
        (("71", "E2", "6.5"), r"line 3, column 'score': '6\.5' is not a whole number"),
        (("71", "", "6"), r"line 3, column 'user_id': '' names nobody"),
        (("x", "E2", "6"), r"line 3, column 'image_id': 'x' is not a photograph's number"),
        (("71", "E1", "6"), r"line 3: 'E1' voted on '71' before"),
    ],
)
def test_a_wrong_vote_is_named(tmp_path: Path, vote: tuple[str, str, str], message: str) -> None:
    root = write(tmp_path, [("71", "E1", "7"), vote])
    with pytest.raises(SourceError, match=message):
        Eva("eva", {"root": str(root)}, 0).counts()


def test_another_separator_is_named(tmp_path: Path) -> None:
    write(tmp_path, [])
    (tmp_path / "data" / VOTES).write_text("image_id,user_id,score\n71,E1,7\n")
    with pytest.raises(SourceError, match=r"line 1: no column 'image_id'; found: image_id,user_id,score"):
        Eva("eva", {"root": str(tmp_path)}, 0).counts()


def test_a_split_zip_is_explained(tmp_path: Path) -> None:
    root = write(tmp_path, [("71", "E1", "7")])
    (root / "EVA_together.zip.001").write_bytes(b"PK")
    with pytest.raises(SourceError, match=r"EVA_together\.zip\.001 cannot be read at random.*cat images/EVA_together"):
        list(Eva("eva", {"root": str(root)}, 0).files())


def test_the_sample_is_read() -> None:
    votes = read_votes(full_size.samples("eva", "votes_filtered.SYNTHETIC.csv"))
    assert votes.to_numpy().tolist() == [["100001", "E1", 7], ["100001", "E2", 5]]


def test_full_size(tmp_path: Path) -> None:
    """4,070 photographs with 136,943 votes, drawn."""
    rng = np.random.default_rng(0)
    images, total = 4_070, 136_943
    counts = np.full(images, total // images) + (np.arange(images) < total % images)
    ids = np.repeat(rng.choice(np.arange(50, 950_000), images, replace=False), counts)
    voters = np.concatenate([rng.choice(2_000, count, replace=False) for count in counts])
    scores = rng.integers(0, 11, total)
    frame = pd.DataFrame({"image": ids, "user": voters, "score": scores}).astype(str).sample(frac=1, random_state=0)
    write(tmp_path, list(frame.itertuples(index=False, name=None)))
    full_size.write_images(tmp_path / "images.parquet", [f"{one}.jpg" for one in sorted(set(frame["image"]))])
    found = Eva("eva", {"root": str(tmp_path)}, 0)
    counted = found.counts()
    assert {key: counted[key] for key in found.published} == dict(found.published)
    rated = found.ratings(pd.DataFrame({"item_id": frame["image"]}))
    means = frame.assign(score=frame["score"].astype(float)).groupby("image")["score"].mean()
    crowd = rated[rated["rater_id"].isna()].set_index("item_id")["score"]
    assert np.abs(crowd - means.loc[crowd.index]).max() < 1e-12
