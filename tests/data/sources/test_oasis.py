"""OASIS in both layouts, with single ratings, a matrix of them or means alone; made-up ratings are synthetic."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from calm.data import SourceError, sources
from calm.data.prepare import prepare
from calm.data.sources.oasis import CLAUSES, Oasis
from calm.data.splits import split
from calm.data.store.tables import COMMENT, RATING, comments, items, raters, ratings, splits
from calm.layout import Layout
from calm.params import Params
from calm.settings import ParamsError
from tests.data.conftest import MakeParams, picture

THEMES = ("Acorns 1", "Acorns 2", "Bar 1", "Bar 2", "Crosswalk 1 ", "Galaxy 7", "Lake 9", "Socks 1")
HEADER = ",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N"
MEANS_HEADER = "item,beauty_mean,Theme,Category,Valence_mean,Arousal_mean,beauty_SD,N,subset,,"
RATERS = 12


def synthetic_ratings() -> np.ndarray:
    """(raters, photographs), 1..7, NaN where a rater did not see a photograph; later photographs are liked more."""
    rng = np.random.default_rng(5)
    values = np.clip(np.round(rng.normal(2 + 0.5 * np.arange(len(THEMES)), 1, (RATERS, len(THEMES)))), 1, 7)
    values[rng.uniform(size=values.shape) < 0.2] = np.nan
    return values


def long_table(values: np.ndarray, column: str = "rater,item,beauty") -> str:
    """Those ratings as a csv."""
    rows = [f"R{rater + 1:03d},I{item + 1:03d},{values[rater, item]:.0f}" for rater, item in np.argwhere(values > 0)]
    return "\n".join([column, *rows]) + "\n"


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """The authors' layout: photographs called by theme, line ends of CR alone, a matrix of ratings."""
    root = tmp_path / "authors"
    (root / "OASIS" / "Images").mkdir(parents=True)
    rows = [f"I{n},{theme},Object,Pixabay,{4 + n / 10},1,100,{3 - n / 10},1,99" for n, theme in enumerate(THEMES, 1)]
    (root / "OASIS" / "OASIS.csv").write_bytes("\r".join([HEADER, *rows, ""]).encode())
    for number, theme in enumerate(THEMES):
        picture(number).save(root / "OASIS" / "Images" / f"{theme.strip()}.jpg")
    savemat(root / "corrData.mat", {"corrData": synthetic_ratings()})
    return root


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """The layout of a part: items.csv, ratings.csv, images/I###.jpg."""
    root = tmp_path / "part"
    (root / "images").mkdir(parents=True)
    lines = ["file,item,theme,category,source,valence_mean,arousal_mean,beauty_mean,beauty_sd,beauty_n"]
    for number, theme in enumerate(THEMES, 1):
        lines.append(f"I{number:03d}.jpg,{number},{theme},Object,Pixabay,{4 + number / 10},{3 - number / 10},4.5,1,140")
        picture(number).save(root / "images" / f"I{number:03d}.jpg")
    (root / "items.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "ratings.csv").write_text(long_table(synthetic_ratings()), encoding="utf-8")
    return root


def oasis(root: Path, seed: int = 17, **settings: Any) -> Oasis:
    """The source itself."""
    return Oasis("oasis", {"root": str(root), **settings}, seed)


def everything(source: Oasis) -> pd.DataFrame:
    """All items, as if prepared."""
    return pd.DataFrame({"item_id": [one.item_id for one in source.photographs()]})


def oasis_params(make_params: MakeParams, root: Path, **settings: Any) -> Params:
    """Parameters in which OASIS serves every role."""
    roles = {role: ["oasis"] for role in ("unlabelled", "generic", "comments", "scores", "raters")}
    return make_params({"oasis": {"root": str(root), **settings}}, roles)


def test_both_layouts_hold_the_same_ratings_and_photographs(authors: Path, part: Path) -> None:
    whole, some = oasis(authors), oasis(part)
    assert list(whole.wanted()) == list(some.wanted()) == [f"I{number:03d}" for number in range(1, 9)]
    assert whole.wanted()["I005"] == "OASIS/Images/Crosswalk 1.jpg"
    pd.testing.assert_frame_equal(whole.single, some.single, check_dtype=False)
    pd.testing.assert_frame_equal(whole.table.drop(columns="name"), some.table.drop(columns="name"))
    assert not whole.absent() and not some.absent()


def test_photographs_of_one_theme_are_a_group(authors: Path) -> None:
    groups = {one.item_id: one.group for one in oasis(authors).photographs()}
    assert groups["I001"] == groups["I002"] == "acorns"
    assert groups["I003"] == groups["I004"] == "bar"
    assert len(set(groups.values())) == 6


def test_a_third_layout_has_a_long_table_beside_the_authors_csv(authors: Path) -> None:
    before = oasis(authors).single
    (authors / "corrData.mat").unlink()
    (authors / "ratings_long.csv").write_text(long_table(synthetic_ratings()), encoding="utf-8")
    pd.testing.assert_frame_equal(oasis(authors).single, before, check_dtype=False)


def test_the_crowd_is_the_raters_that_are_not_kept_for_testing(part: Path) -> None:
    source, values = oasis(part, test_raters=0.25), synthetic_ratings()
    assert len(source.test_raters) == 3
    kept = values[[f"R{number:03d}" not in source.test_raters for number in range(1, RATERS + 1)]]
    crowd = source.crowd.set_index("item_id")
    for number, column in enumerate(kept.T, 1):
        given = column[np.isfinite(column)]
        row = crowd.loc[f"I{number:03d}"]
        assert row["score"] == pytest.approx(given.mean())
        assert row["votes"] == [int((given == step).sum()) for step in range(1, 8)]
        assert row["n"] == len(given)
    rows = source.ratings(everything(source))
    assert rows["rater_id"].notna().sum() == np.isfinite(values).sum()  # test raters are rated by, too
    assert set(rows["origin"]) == {"human"}


def test_test_raters_change_with_the_seed_and_not_with_the_order_of_rows(part: Path) -> None:
    first = oasis(part, test_raters=0.5).test_raters
    lines = (part / "ratings.csv").read_text(encoding="utf-8").splitlines()
    (part / "ratings.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n", encoding="utf-8")
    assert oasis(part, test_raters=0.5).test_raters == first
    assert oasis(part, seed=18, test_raters=0.5).test_raters != first
    assert oasis(part, test_raters=0.0).test_raters == frozenset()


def test_without_single_ratings_the_published_means_are_the_scores(authors: Path) -> None:
    (authors / "corrData.mat").unlink()
    with pytest.raises(SourceError, match=r"has none of \*\*/\*means_per_image\*\.csv.*corrData\.mat"):
        list(oasis(authors).files())
    rows = [f"{number},{5 - number / 10},Acorns1,Object,4,3,1,{100 + number},subset1,," for number in range(1, 9)]
    (authors / "means_per_image.csv").write_text("\n".join([MEANS_HEADER, *rows]) + "\n", encoding="utf-8")
    source = oasis(authors)
    assert source.ratings(everything(source))["rater_id"].isna().all()
    assert source.crowd["score"].tolist() == pytest.approx([5 - number / 10 for number in range(1, 9)])
    assert source.crowd["n"].tolist() == [100 + number for number in range(1, 9)]


def test_captions_come_from_themes_and_comments_are_called_synthetic(part: Path) -> None:
    rows = pd.DataFrame(oasis(part).comments(everything(oasis(part))))
    told = rows[rows["item_id"] == "I001"]
    captions = told[told["aspect"] == "caption"]
    assert captions["text"].tolist() == ["A photograph of acorns.", "Acorns, category object."]
    assert set(captions["origin"]) == {"theme"}
    said = told[told["aspect"].isna()]
    assert set(said["origin"]) == {"synthetic_ratings"} and len(said) == 3
    assert all("acorns" in text for text in said["text"])


def test_comments_follow_the_ratings_and_change_with_the_seed_alone(part: Path) -> None:
    def said(seed: int) -> pd.Series:
        source = oasis(part, seed=seed, test_raters=0.0, comments=4)
        rows = pd.DataFrame(source.comments(everything(source)))
        return rows[rows["aspect"].isna()].set_index("comment_id")["text"]

    first = said(17)
    pd.testing.assert_series_equal(first, said(17))
    assert (first != said(18)).any()
    worst, *_, best = CLAUSES["beauty"]
    assert all(any(clause in text for clause in worst) for text in first[first.index.str.startswith("I001/")])
    assert all(any(clause in text for clause in best) for text in first[first.index.str.startswith("I008/")])


def test_the_whole_way_through_the_data_stages(part: Path, make_params: MakeParams, tmp_path: Path) -> None:
    params, layout = oasis_params(make_params, part, test_raters=0.5), Layout(tmp_path / "out")
    sources.fetch("oasis", params, layout)
    prepare("oasis", params, layout)
    split(params, layout)
    assert len(items(layout, "oasis")) == 8
    assert list(ratings(layout, "oasis").columns) == RATING.names
    assert list(comments(layout, "oasis").columns) == COMMENT.names
    merged = items(layout, "oasis").merge(splits(layout, "oasis"), on=["dataset", "item_id"], suffixes=("", "_"))
    assert merged.groupby("group")["split_"].nunique().max() == 1
    assert set(merged["split_"]) == {"train", "test"}
    held_out = raters(layout, "oasis").loc[lambda rows: rows["split"] == "test", "rater_id"]
    assert set(held_out) == Oasis("oasis", {"root": str(part), "test_raters": 0.5}, params.seed).test_raters
    assert len(held_out) == RATERS / 2
    names = [entry["name"] for entry in json.loads((layout.raw("oasis") / "manifest.json").read_text())["files"]]
    assert names[:2] == ["items.csv", "ratings.csv"]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("items.csv", "I003.jpg", "bar.jpg", r"items\.csv, line 4, column 'file': 'bar\.jpg' is no number of a photo"),
        ("items.csv", "I003.jpg", "I002.jpg", r"items\.csv, line 4, column 'file': 'I002' is in line 3 already"),
        ("items.csv", "4.3,2.7", "4.3,high", r"items\.csv, line 4, column 'arousal_mean': 'high' is not a number"),
        ("items.csv", "4.3,2.7", "8.3,2.7", r"items\.csv, line 4, column 'valence_mean': '8\.3' .* in 1\.\.7"),
        (
            "items.csv",
            ",category",
            ",kind",
            r"items\.csv, line 1: no column 'category'; found: file, item, theme, kind",
        ),
        ("ratings.csv", "R002,I001,", "R002,I099,", r"ratings\.csv, line \d+, column 'item': 'I099' is no photograph"),
        ("ratings.csv", "R002,I002,", "R002,I001,", r"column 'item': 'I001' was rated by this rater already"),
        ("ratings.csv", "R001,I001,1", "R001,I001,9", r"line 2, column 'beauty': '9' is not a whole number in 1\.\.7"),
        ("ratings.csv", "R001,I001,1", "R001,I001,1.5", r"column 'beauty': '1\.5' is not a whole number in 1\.\.7"),
        ("ratings.csv", "R001,I001,1", ",I001,1", r"line 2, column 'rater': '' names nobody"),
    ],
)
def test_a_wrong_cell_is_named(file: str, old: str, new: str, message: str, part: Path) -> None:
    text = (part / file).read_text(encoding="utf-8")
    assert old in text
    (part / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        list(oasis(part).files())


def test_a_matrix_without_ratings_on_the_scale_is_refused(authors: Path) -> None:
    values = synthetic_ratings()
    values[3, 2] = 9
    savemat(authors / "corrData.mat", {"corrData": values})
    with pytest.raises(SourceError, match=r"corrData\.mat, corrData row 4, column 3: 9: no whole number in 1\.\.7"):
        list(oasis(authors).files())
    savemat(authors / "corrData.mat", {"corrData": np.full((2, 9), 3.0)})
    with pytest.raises(SourceError, match="column 9 is no photograph of the set"):
        list(oasis(authors).files())
    savemat(authors / "corrData.mat", {"other": values})
    with pytest.raises(SourceError, match="no matrix 'corrData'"):
        list(oasis(authors).files())


def test_settings_are_checked(part: Path) -> None:
    with pytest.raises(ParamsError, match=r"data\.datasets\.oasis\.test_raters"):
        oasis(part, test_raters=1.0)
    with pytest.raises(ParamsError, match=r"data\.datasets\.oasis\.test_rater: unknown key"):
        oasis(part, test_rater=0.5)


def test_the_raters_of_no_score_must_be_those_that_are_held_out(part: Path, make_params: MakeParams) -> None:
    share = make_params({"oasis": {}}, {"scores": ["oasis"]}).data.split.raters.test_share
    sources.source("oasis", oasis_params(make_params, part, test_raters=share))
    with pytest.raises(ParamsError, match=r"data\.datasets\.oasis\.test_raters .* and data\.split\.raters\.test_share"):
        sources.source("oasis", oasis_params(make_params, part, test_raters=share / 2))


def test_the_folder_is_found_by_the_environment(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALM_DATA", str(part))
    assert Oasis("oasis", {}, 17).root == part
    part.rename(part.parent / "oasis")
    monkeypatch.setenv("CALM_DATA", str(part.parent))
    assert Oasis("oasis", {}, 17).root == part.parent / "oasis"


def test_real_ratings_of_a_real_part() -> None:
    root = Path(os.environ.get("CALM_DATA", ""))
    if not os.environ.get("CALM_DATA") or not (root / "items.csv").is_file():
        pytest.skip("CALM_DATA names no folder with OASIS' items.csv and ratings.csv")
    source = Oasis("oasis", {"test_raters": 0.0}, 17)
    counts = source.counts()
    photographs = len(list(root.glob("images/*.jpg")))
    rows = len((root / "ratings.csv").read_text(encoding="utf-8").splitlines()) - 1
    assert (counts["images"], counts["scored"], counts["ratings"]) == (photographs, photographs, rows)
    published = source._published_means().set_index("item_id")["score"]
    ours = source.crowd.set_index("item_id")["score"]
    assert ours.corr(published, method="spearman") > 0.99


def test_samples_of_the_authors_tables(formats: Path, tmp_path: Path) -> None:
    sample = formats / "oasis"
    (tmp_path / "OASIS.csv").write_bytes((sample / "OASIS.head20.csv").read_bytes().replace(b"\r\n", b"\r"))
    for name in ("beauty_means_per_image", "ratings_long"):
        (tmp_path / f"{name}.csv").write_bytes((sample / f"{name}.head20.csv").read_bytes())
    assert len(oasis(tmp_path).table) == 20
    assert oasis(tmp_path).table["theme"].tolist()[:2] == ["Acorns 1", "Acorns 2"]
    with pytest.raises(SourceError, match="is no photograph of the set"):  # the head of another table
        _ = oasis(tmp_path).single
    (tmp_path / "ratings_long.csv").unlink()
    crowd = oasis(tmp_path).crowd.set_index("item_id")
    assert crowd.loc["I001", ["score", "n"]].tolist() == [4.86, 140]
    assert list(oasis(tmp_path).absent())[:2] == ["I001", "I002"]
