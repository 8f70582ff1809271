"""Prepared datasets are complete or absent, the same every time, and what is bad is quarantined with its reason."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calm.data import tables
from calm.data.images import ImageStore
from calm.data.prepare import prepare
from calm.data.sources import SourceError, fetch
from calm.layout import Layout
from calm.params import Params
from tests.data.conftest import MakeParams, photos_settings, picture


def digests(root: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def prepared(params: Params, root: Path, dataset: str) -> Layout:
    layout = Layout(root)
    fetch(dataset, params, layout)
    prepare(dataset, params, layout)
    return layout


@pytest.fixture
def photos_params(few_photos: Path, make_params: MakeParams) -> Params:
    return make_params({"photos": photos_settings()}, {"scores": ["photos"], "raters": ["photos"]})


def test_bad_photographs_are_quarantined_with_the_reason_and_the_rest_goes_on(
    scored: Path, scored_params: Params, tmp_path: Path
) -> None:
    whole = (scored / "p03.png").read_bytes()
    (scored / "p03.png").write_bytes(whole[: len(whole) // 2])
    (scored / "p04.png").write_bytes(b"not a picture")
    picture(5, (3000, 40)).save(scored / "p05.png")
    layout = prepared(scored_params, tmp_path / "out", "local")
    refused = tables.quarantine(layout, "local").set_index("item_id")["reason"].to_dict()
    assert set(refused) == {"p03", "p04", "p05"}
    assert "truncated" in refused["p03"]
    assert "allowed format" in refused["p04"]
    assert "too narrow" in refused["p05"]
    kept = set(tables.items(layout, "local")["item_id"])
    assert kept == set(ImageStore(layout.prepared("local")))
    assert len(kept) == 9
    assert set(tables.ratings(layout, "local")["item_id"]) <= kept
    assert tables.comments(layout, "local").empty  # its photograph was p03


def test_a_folder_without_one_usable_photograph_is_an_error(tmp_path: Path, make_params: MakeParams) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.jpg").write_bytes(b"nothing")
    settings = {"root": str(tmp_path / "mine"), "licence": "test"}
    with pytest.raises(SourceError, match=r"not one of its photographs can be used; the first: a\.jpg: not a photo"):
        prepared(make_params({"local": settings}, {"unlabelled": ["local"]}), tmp_path / "out", "local")
    assert not Layout(tmp_path / "out").prepared("local").exists()


def test_files_changed_since_they_were_fetched_are_errors(scored: Path, scored_params: Params, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="fetch"):
        prepare("local", scored_params, layout)
    fetch("local", scored_params, layout)
    table = (scored / "scores.csv").read_text(encoding="utf-8")
    (scored / "scores.csv").write_text(table.replace("p01.png,2", "p01.png,3"), encoding="utf-8")
    with pytest.raises(SourceError, match=r"scores\.csv.*sha256"):
        prepare("local", scored_params, layout)
    (scored / "scores.csv").write_text(table, encoding="utf-8")
    picture(50).save(scored / "p02.png")
    with pytest.raises(SourceError, match=r"p02\.png.*changed since it was fetched"):
        prepare("local", scored_params, layout)
    assert not layout.prepared("local").exists()


def test_two_photographs_of_one_name_are_an_error(scored: Path, scored_params: Params, tmp_path: Path) -> None:
    picture(50).save(scored / "p02.jpg")
    with pytest.raises(SourceError, match=r"p02\.jpg and p02\.png are both called 'p02'"):
        prepared(scored_params, tmp_path / "out", "local")


def test_preparing_twice_gives_the_same_bytes_on_any_number_of_threads(photos_params: Params, tmp_path: Path) -> None:
    other = photos_params.model_copy(update={"threads": photos_params.threads.model_copy(update={"prepare": 5})})
    one, two = (prepared(params, tmp_path / name, "photos") for params, name in ((photos_params, "a"), (other, "b")))
    assert digests(one.root) == digests(two.root)
    prepare("photos", photos_params, one)
    assert digests(one.root) == digests(two.root)


def test_views_are_synthetic_in_every_column_that_could_tell(photos_params: Params, tmp_path: Path) -> None:
    layout = prepared(photos_params, tmp_path, "photos")
    items = tables.items(layout, "photos")
    view = items["item_id"].str.contains("#v")
    assert (view == items["synthetic_edits"].notna()).all()
    assert view.sum() == 2 * (~view).sum() == 16
    photograph = items["item_id"].str.split("#").str[0]
    assert (items.groupby(photograph)["group"].nunique() == 1).all()
    assert set(tables.ratings(layout, "photos")["origin"]) == {"synthetic_edits", "synthetic_rater"}
    comments = tables.comments(layout, "photos")
    assert set(comments.loc[comments["aspect"].isna(), "origin"]) == {"synthetic_grammar"}
    assert set(comments.loc[comments["aspect"] == "caption", "origin"]) == {"theme", "file_name"}
    assert not comments.loc[comments["aspect"] == "caption", "item_id"].str.contains("#").any()


def test_stored_photographs_have_the_size_and_hash_their_row_says(photos_params: Params, tmp_path: Path) -> None:
    layout = prepared(photos_params, tmp_path, "photos")
    store = ImageStore(layout.prepared("photos"))
    for _, row in tables.items(layout, "photos").iterrows():
        assert store[row["item_id"]].size == (row["width"], row["height"])
        assert max(row["width"], row["height"]) <= photos_params.data.image.max_side
        if "#" in row["item_id"]:
            assert hashlib.sha256(store.encoded(row["item_id"])).hexdigest() == row["sha256"]


def test_views_differ_from_their_photograph_and_other_seeds_draw_others(photos_params: Params, tmp_path: Path) -> None:
    layout = prepared(photos_params, tmp_path / "a", "photos")
    store = ImageStore(layout.prepared("photos"))
    for item_id in store:
        if "#" in item_id:
            original = np.asarray(store[item_id.split("#")[0]], dtype=float)
            assert np.abs(np.asarray(store[item_id], dtype=float) - original).mean() > 0.5, item_id
    reseeded = prepared(photos_params.model_copy(update={"seed": 18}), tmp_path / "b", "photos")
    edits, others = (tables.items(one, "photos")["synthetic_edits"].dropna().tolist() for one in (layout, reseeded))
    assert edits != others


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_leaves_no_half_written_output(scored: Path, scored_params: Params, small_disk: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(11):
        noise = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
        Image.fromarray(noise).save(scored / f"p{number:02d}.png")
    layout = Layout(small_disk)
    fetch("local", scored_params, layout)
    before = digests(small_disk)
    with pytest.raises(OSError, match="prepared/local"):
        prepare("local", scored_params, layout)
    assert digests(small_disk) == before
    assert not layout.prepared("local").exists()
