"""Prepared datasets are complete or absent, the same every time, and what is bad is quarantined with its reason."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calm.data import prepare as stage
from calm.data.prepare import prepare
from calm.data.progress import in_order
from calm.data.sources import SourceError, fetch
from calm.data.sources.local import Local
from calm.data.store import tables
from calm.data.store.shards import ImageStore, ShardState
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


def test_two_photographs_of_one_name_are_an_error(
    scored: Path, scored_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Local.photographs
    monkeypatch.setattr(Local, "photographs", lambda self: (replace(one, item_id="p02") for one in found(self)))
    with pytest.raises(SourceError, match=r"p00\.png and p01\.png are both called 'p02'"):
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


KILLED = """
import sys
from pathlib import Path
from calm.data import prepare as stage
from calm.data.store.shards import ShardState
from calm.layout import Layout
from calm.params import parse_params
from ruamel.yaml import YAML
stage.SHARD_BYTES = int(sys.argv[3])
finish = ShardState._finish
def finish_and_tell(self, following):
    finish(self, following)
    print(following, flush=True)
    if following >= (6, 0):
        sys.stdin.readline()
ShardState._finish = finish_and_tell
stage.prepare("local", parse_params(YAML(typ="safe").load(Path(sys.argv[1])), "test"), Layout(Path(sys.argv[2])))
"""
SMALL_SHARD = 15_000  # bytes: some three photographs


def test_killed_it_goes_on_from_its_last_whole_shard_to_the_same_bytes(
    scored: Path, scored_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scored / "p01.png").write_bytes(b"not a picture")
    monkeypatch.setattr(stage, "SHARD_BYTES", SMALL_SHARD)
    whole, killed = Layout(tmp_path / "whole"), Layout(tmp_path / "killed")
    for layout in (whole, killed):
        fetch("local", scored_params, layout)
    prepare("local", scored_params, whole)
    assert not whole.state("prepare-local").exists()
    assert len(list(whole.prepared("local").glob("*.arrow"))) > 3
    file = tmp_path / "params.yaml"
    file.write_text(json.dumps(scored_params.model_dump()), encoding="utf-8")
    command = [sys.executable, "-c", KILLED, str(file), str(killed.root), str(SMALL_SHARD)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith(b"(6"):
            assert process.poll() is None
        process.kill()
    left = sorted(path.name for path in killed.state("prepare-local").rglob("images-*.json"))
    assert len(left) >= 2
    decoded = []
    real = stage._prepare_one
    monkeypatch.setattr(stage, "_prepare_one", lambda *given: (decoded.append(given[-1].item_id), real(*given))[1])
    prepare("local", scored_params, killed)
    assert 0 < len(decoded) <= 6  # of twelve
    assert digests(killed.root) == digests(whole.root)


def test_interrupted_after_every_shard_it_goes_on_to_the_same_bytes(
    photos_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most shards end between the views of a photograph."""
    monkeypatch.setattr(stage, "SHARD_BYTES", 150_000)
    whole = prepared(photos_params, tmp_path / "whole", "photos")
    layout = Layout(tmp_path / "broken")
    fetch("photos", photos_params, layout)
    finish = ShardState._finish

    def breaking(self: ShardState, following: tuple[int, int]) -> None:
        finish(self, following)
        raise KeyboardInterrupt

    monkeypatch.setattr(ShardState, "_finish", breaking)
    interruptions = 0
    while not layout.prepared("photos").exists():
        with suppress(KeyboardInterrupt):
            prepare("photos", photos_params, layout)
        interruptions += 1
        assert interruptions < 20
    assert interruptions > 5
    assert digests(layout.root) == digests(whole.root)


def test_state_of_other_settings_or_damaged_state_is_not_gone_on_with(
    scored: Path, scored_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD_BYTES", SMALL_SHARD)
    whole = prepared(scored_params, tmp_path / "whole", "local")
    layout = Layout(tmp_path / "out")
    fetch("local", scored_params, layout)
    release = ShardState.release
    monkeypatch.setattr(ShardState, "release", lambda self: None)
    prepare("local", scored_params, layout)
    monkeypatch.setattr(ShardState, "release", release)
    first = next(layout.state("prepare-local").rglob("images-00001.arrow"))
    first.unlink()  # before it is cut: the output may be a hard link to it
    first.write_bytes(b"cut")
    prepare("local", scored_params, layout)
    assert digests(layout.root) == digests(whole.root)
    image = scored_params.data.image.model_copy(update={"max_side": 100})
    data = scored_params.data.model_copy(update={"image": image})
    other = scored_params.model_copy(update={"data": data})
    monkeypatch.setattr(ShardState, "release", lambda self: None)
    prepare("local", scored_params, layout)
    monkeypatch.setattr(ShardState, "release", release)
    prepare("local", other, layout)
    assert tables.items(layout, "local")["width"].max() == 100
    assert not layout.state("prepare-local").exists()


def test_results_come_in_order_and_wait_in_bounded_number() -> None:
    running: list[int] = []

    def work(number: int) -> int:
        running.append(number)
        time.sleep(0.002 * (number % 3))
        return number

    with ThreadPoolExecutor(3) as pool:
        results = in_order(pool, work, range(50), waiting=6)
        for number, result in enumerate(results):
            assert result == number
            assert len(running) <= number + 7
    assert len(running) == 50


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
