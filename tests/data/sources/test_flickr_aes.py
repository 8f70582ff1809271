"""FLICKR-AES: tables with stray blanks are read, raters and photographs of the two splits are disjoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from calm.data import SourceError
from calm.data.sources.flickr_aes import RATINGS, SCORES, FlickrAes, read_ratings, read_scores
from calm.settings import ParamsError
from tests.data import full_size

FIRST, SECOND = "farm1_100_10000000001_aaaaaaaaaa_b", "farm1_100_10000000002_bbbbbbbbbb_b"


def source(root: Path, **settings: Any) -> FlickrAes:
    """FLICKR-AES in a folder."""
    return FlickrAes("flickr_aes", {"root": str(root), **settings}, 0)


def write(root: Path, ratings: str, scores: str) -> Path:
    """Both tables with these lines, the csv's after its header."""
    root.mkdir(parents=True, exist_ok=True)
    (root / RATINGS).write_text(f"worker, imagePair, score\n{ratings}\n")
    (root / SCORES).write_text(f"{scores}\n")
    return root


@pytest.fixture
def small(tmp_path: Path) -> FlickrAes:
    """A tenth of the set, in its layout."""
    full_size.write_flickr_aes(tmp_path, full_size.flickr_ratings(0.1))
    return source(tmp_path)


def test_stray_blanks_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, "A1,x_b.jpg,3\nA1, y_b.jpg,4\nA2 , x_b.jpg, 2", " x_b.jpg 0.55\ny_b.jpg 0.7125")
    assert read_ratings(tmp_path / RATINGS).to_dict("records") == [
        {"item_id": "x_b", "rater_id": "A1", "score": 3.0},
        {"item_id": "x_b", "rater_id": "A2", "score": 2.0},
        {"item_id": "y_b", "rater_id": "A1", "score": 4.0},
    ]
    assert read_scores(tmp_path / SCORES).to_dict() == {"x_b": 0.55, "y_b": 0.7125}


def test_the_samples_are_read() -> None:
    rated = read_ratings(full_size.samples("flickr-aes", "FLICKR-AES_image_labeled_by_each_worker.SYNTHETIC.csv"))
    assert rated[["item_id", "score"]].to_numpy().tolist() == [[FIRST, 3.0], [FIRST, 2.0], [SECOND, 4.0]]
    scores = read_scores(full_size.samples("flickr-aes", "FLICKR-AES_image_score.SYNTHETIC.txt"))
    assert scores.to_dict() == {FIRST: 0.55, SECOND: 0.7125}


@pytest.mark.parametrize(
    ("ratings", "scores", "message"),
    [
        ("A1,x.jpg,6", "x.jpg 0.5", r"each_worker\.csv, line 2, column 'score': '6' is not a number in 1\.\.5"),
        ("A1,x.jpg,", "x.jpg 0.5", r"line 2, column 'score': '' is not a number"),
        (",x.jpg,3", "x.jpg 0.5", r"line 2, column 'worker': '' names nobody"),
        ("A1,,3", "x.jpg 0.5", r"line 2, column 'imagePair': '' names no photograph"),
        ("A1,x.jpg,3,9", "x.jpg 0.5", r"each_worker\.csv: not a table"),
        ("A1,x.jpg,3", "x.jpg 1.5", r"image_score\.txt, line 1, column 'score': '1\.5' is not a number in 0\.\.1"),
        ("A1,x.jpg,3", "x.jpg 0.5\nx.jpg 0.6", r"line 2, column 'image': 'x' is in line 1 already"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, ratings: str, scores: str, message: str) -> None:
    found = source(write(tmp_path, ratings, scores))
    with pytest.raises(SourceError, match=message):
        found.counts()


def test_who_rated_a_photograph_twice_counts_once(tmp_path: Path) -> None:
    write(tmp_path, "A1,x.jpg,3\nA1,x.jpg,4", "x.jpg 0.5")
    assert read_ratings(tmp_path / RATINGS)["score"].tolist() == [3.5]


def test_raters_and_photographs_of_the_splits_are_disjoint(small: FlickrAes) -> None:
    split = {one.item_id: one.split for one in small.photographs()}
    rows = small.ratings(pd.DataFrame({"item_id": list(split)}))
    personal = rows[rows["rater_id"].notna()]
    sides = personal.assign(split=personal["item_id"].map(split)).groupby("rater_id")["split"].agg(set)
    assert all(len(one) == 1 for one in sides)
    assert set(sides.index[sides == {"test"}]) == set(small.test_raters)
    assert len(small.personal) > len(personal), "others rated test photographs too"
    assert set(zip(personal["score_min"], personal["score_max"], strict=True)) == {(1.0, 5.0)}
    crowd = rows[rows["rater_id"].isna()]
    assert set(crowd["item_id"]) == set(split)
    assert set(zip(crowd["score_min"], crowd["score_max"], strict=True)) == {(0.0, 1.0)}


def test_the_range_of_test_raters_is_a_setting(small: FlickrAes, tmp_path: Path) -> None:
    narrow = source(tmp_path, fewest_ratings=120, most_ratings=140)
    assert 0 < len(narrow.test_raters) < len(small.test_raters)
    assert "raters with 120 to 140 ratings" in next(iter(narrow.splits().values()))[1]
    with pytest.raises(ParamsError, match="fewest_ratings is greater than most_ratings"):
        source(tmp_path, fewest_ratings=200)


def test_counts_that_differ_from_the_published_ones_are_explained_and_not_forced(small: FlickrAes) -> None:
    counts = small.counts()
    assert counts["test_raters"] == len(small.test_raters) != small.published["test_raters"]
    assert "no list of the 37" in small.explained["test_raters"]
    assert counts["ratings"] + counts["ratings_left_out"] == len(small.personal)


def test_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    rated = full_size.flickr_ratings(0.1)
    full_size.write_flickr_aes(tmp_path / "a", rated)
    full_size.write_flickr_aes(tmp_path / "b", rated.sample(frac=1, random_state=1))
    first, second = source(tmp_path / "a"), source(tmp_path / "b")
    assert list(first.splits().items()) == list(second.splits().items())
    items = pd.DataFrame({"item_id": list(first.wanted())})
    pd.testing.assert_frame_equal(first.ratings(items), second.ratings(items))


def test_full_size(tmp_path: Path) -> None:
    """40,000 photographs and 210 raters shaped as published: the rule finds the published split."""
    full_size.write_flickr_aes(tmp_path, full_size.flickr_ratings())
    found = source(tmp_path)
    counts = found.counts()
    assert {key: counts[key] for key in found.published} == dict(found.published)
