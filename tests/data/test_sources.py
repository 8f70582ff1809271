"""Sources check their settings, their wheels and folders, and every byte they name."""

from __future__ import annotations

import importlib.util
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from calm.data import sources
from calm.data.prepare import prepare
from calm.data.sources import Source, SourceError, aadb, photos
from calm.data.sources.photos import file_name_words
from calm.data.store.tables import comments, items, quarantine, ratings
from calm.layout import Layout
from calm.params import Params
from calm.settings import ParamsError
from tests.data.conftest import MakeParams, photos_settings, picture, use_list


def local_params(make_params: MakeParams, root: Path | None, **settings: Any) -> Params:
    """Parameters of a rated folder."""
    rated = {
        "root": root and str(root),
        "csv": "scores.csv",
        "score_min": 1.0,
        "score_max": 7.0,
        "licence": "test",
        **settings,
    }
    chosen = {key: value for key, value in rated.items() if value is not None}  # None: left out
    return make_params({"local": chosen}, {"unlabelled": ["local"]})


def test_unknown_datasets_and_keys_are_named(make_params: MakeParams) -> None:
    params = make_params({"nowhere": {}}, {"scores": ["nowhere"]})
    with pytest.raises(ParamsError, match=r"data\.datasets\.nowhere: unknown dataset; calm knows: .*local, .*photos"):
        sources.source("nowhere", params)
    with pytest.raises(ParamsError, match="no entry 'photos'"):
        sources.source("photos", params)
    for settings, message in (
        (photos_settings() | {"vews": 3}, r"data\.datasets\.photos\.vews: unknown key"),
        (photos_settings() | {"views": "3"}, r"data\.datasets\.photos\.views: .*'3'"),
        ({}, r"data\.datasets\.photos\.views: missing"),
    ):
        with pytest.raises(ParamsError, match=message):
            sources.source("photos", make_params({"photos": settings}, {"scores": ["photos"]}))


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [("licence:", "license:", "license"), ("files:", "file:", "obtain"), ("images: 9958", "images: many", "published")],
)
def test_a_wrong_key_of_a_card_is_named(tmp_path: Path, old: str, new: str, key: str) -> None:
    card = Path(aadb.__file__).with_name("card.yaml").read_text(encoding="utf-8")
    assert old in card
    (tmp_path / "card.yaml").write_text(card.replace(old, new), encoding="utf-8")
    with pytest.raises(ParamsError, match=rf"(?s)card\.yaml:.*{key}"):
        type("Copy", (Source,), {}, about=str(tmp_path / "__init__.py"))


def test_a_scale_without_a_csv_is_refused(make_params: MakeParams, folder: Path) -> None:
    with pytest.raises(ParamsError, match="no effect without csv"):
        sources.source("local", local_params(make_params, folder, csv=None))
    with pytest.raises(ParamsError, match="score_min < score_max"):
        sources.source("local", local_params(make_params, folder, score_min=8.0))


def test_every_listed_photograph_has_a_group_theme_subject_and_licence(make_params: MakeParams) -> None:
    source = sources.source("photos", make_params({"photos": photos_settings()}, {"scores": ["photos"]}))
    assert isinstance(source, photos.Photos)
    assert len(source.listed) == 95
    for row in source.listed.values():
        assert all(row.values()), row
        assert len(row["sha256"]) == 64
    assert len({row["group"] for row in source.listed.values()}) == 45
    assert source.listed["eiffel-1"]["group"] == source.listed["eiffel-2"]["group"]


def test_a_missing_wheel_is_named_with_the_way_to_get_it(
    make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mvtbdata" else found(name))
    params = make_params({"photos": photos_settings()}, {"scores": ["photos"]})
    with pytest.raises(
        SourceError, match=r"mvtb-data, which is not installed: run `make env`.*calm-aesthetics\[demo\]"
    ):
        sources.fetch("photos", params, Layout(tmp_path))
    assert not list(tmp_path.rglob("*manifest*"))


def test_a_photograph_with_another_sha256_is_refused(
    few_photos: Path, make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_params({"photos": photos_settings()}, {"scores": ["photos"]})
    source = sources.source("photos", params)
    assert isinstance(source, photos.Photos)
    rows = [dict(row) for row in source.listed.values()]
    rows[1]["sha256"] = "0" * 64
    use_list(rows, tmp_path / "wrong.csv", monkeypatch)
    with pytest.raises(SourceError, match=rf"{rows[1]['file']}.*expected 0000"):
        sources.fetch("photos", params, Layout(tmp_path))


def test_the_manifest_has_hashes_and_no_path_of_this_machine(
    few_photos: Path, make_params: MakeParams, tmp_path: Path
) -> None:
    layout = Layout(tmp_path)
    sources.fetch("photos", make_params({"photos": photos_settings()}, {"scores": ["photos"]}), layout)
    text = (layout.raw("photos") / "manifest.json").read_text(encoding="utf-8")
    assert "site-packages" not in text
    assert len(json.loads(text)["files"]) == 8


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("pexels-cup-of-couple-6962851", []),
        ("P1070491", []),
        ("58060", []),
        ("image3", []),
        ("notre-dame", ["notre", "dame"]),
        ("motorcycle_left", ["motorcycle"]),
        ("rocks2-l", ["rocks"]),
    ],
)
def test_captions_use_only_words_of_file_names_that_tell_something(stem: str, words: list[str]) -> None:
    assert file_name_words(stem) == words


def test_a_folder_with_a_csv_is_a_dataset(scored_params: Params, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    sources.fetch("local", scored_params, layout)
    prepare("local", scored_params, layout)
    assert set(items(layout, "local")["item_id"]) == {*(f"p{number:02d}" for number in range(11)), "sub/p99"}
    given = ratings(layout, "local")
    crowd = given[given["rater_id"].isna()].set_index("item_id")
    assert crowd.loc["p08", "score"] == 2
    assert crowd.loc["sub/p99", "score"] == 5.5
    assert list(crowd.loc["sub/p99", "votes"]) == [0, 0, 0, 1, 0, 0, 1]
    assert set(given["rater_id"].dropna()) == {"ann", "ben"}
    assert set(given["origin"]) == {"human"}
    assert set(zip(given["score_min"], given["score_max"], strict=True)) == {(1, 7)}
    assert comments(layout, "local")["text"].tolist() == ["Lovely light."]


def test_a_folder_alone_holds_unlabelled_photographs(folder: Path, make_params: MakeParams, tmp_path: Path) -> None:
    params = local_params(make_params, folder, csv=None, score_min=None, score_max=None)
    layout = Layout(tmp_path)
    sources.fetch("local", params, layout)
    prepare("local", params, layout)
    assert len(items(layout, "local")) == 12
    assert ratings(layout, "local").empty


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("absent.png,3,,", r"line 14, column 'file': 'absent.png' is no photograph in"),
        ("../secret.png,3,,", r"line 14, column 'file'"),
        ("p01.png,good,ann,", r"line 14, column 'score': 'good' is not a number in 1\.\.7"),
        ("p01.png,9,ann,", r"line 14, column 'score': '9' is not a number in 1\.\.7"),
        ("p01.png,nan,ann,", r"line 14, column 'score': 'nan' is not a number"),
        ("p01.png,,ann,", r"line 14, column 'score': '' is empty, and there is no comment"),
        ("p01.png,3,,", r"line 14, column 'file': 'p01.png' was scored by this rater, or by nobody"),
    ],
)
def test_a_wrong_cell_is_named_by_file_line_and_column(
    row: str, message: str, scored: Path, make_params: MakeParams, tmp_path: Path
) -> None:
    table = scored / "scores.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    lines = [*(line for line in lines if "ben" not in line), row]
    assert len(lines) == 14
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"scores\.csv, " + message):
        sources.fetch("local", local_params(make_params, scored), Layout(tmp_path))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("name,score", "no column 'file'; found: name, score"),
        ("file|score", r"no column 'file'; found: file\|score"),
        ("file,score,ratr", "unknown or second column 'ratr'"),
        ("file,score,score", "second column 'score.1'"),
    ],
)
def test_a_wrong_header_is_named(
    header: str, message: str, scored: Path, make_params: MakeParams, tmp_path: Path
) -> None:
    (scored / "scores.csv").write_text(f"{header}\n", encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        sources.fetch("local", local_params(make_params, scored), Layout(tmp_path))


@pytest.mark.parametrize(("encoding", "separator"), [("cp1252", ";"), ("utf-16", "\t"), ("utf-8-sig", ",")])
@pytest.mark.parametrize("accents", ["NFC", "NFD"])
def test_a_csv_is_read_as_any_spreadsheet_saves_it(
    encoding: str, separator: str, accents: str, make_params: MakeParams, tmp_path: Path
) -> None:
    mine = tmp_path / "mine" / unicodedata.normalize(accents, "été")
    mine.mkdir(parents=True)
    rows = ["file|score"]
    for number, suffix in enumerate((".jpg", ".png")):  # told apart by their suffix alone
        picture(number).save(mine / f"IMG_1{suffix}")
        rows.append(f"été\\IMG_1{suffix}|" + (f"{number + 1},5" if separator != "," else f"{number + 1}.5"))
    table = "\r\n".join(rows).replace("|", separator)
    (mine.parent / "scores.csv").write_bytes(table.encode(encoding))
    (mine.parent / "again").symlink_to(".")
    params, layout = local_params(make_params, mine.parent), Layout(tmp_path / "out")
    sources.fetch("local", params, layout)
    prepare("local", params, layout)
    given = ratings(layout, "local").query("rater_id.isna()").set_index("item_id")["score"]
    named = {unicodedata.normalize("NFC", name): score for name, score in given.items()}
    assert named == {"été/IMG_1.jpg": 1.5, "été/IMG_1.png": 2.5}


def test_a_workbook_says_what_to_do(scored: Path, make_params: MakeParams, tmp_path: Path) -> None:
    (scored / "scores.csv").write_bytes(b"PK\x03\x04")
    with pytest.raises(SourceError, match=r"scores\.csv: a workbook: save its sheet as csv"):
        sources.fetch("local", local_params(make_params, scored), Layout(tmp_path))


def test_a_csv_is_read_as_spreadsheets_save_it(scored: Path, make_params: MakeParams, tmp_path: Path) -> None:
    table = "file;score;comment\np01.png;3;Schön.\n"
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        (scored / "scores.csv").write_bytes(table.encode(encoding))
        source = sources.source("local", local_params(make_params, scored))
        assert pd.DataFrame(source.comments(pd.DataFrame()))["text"].tolist() == ["Schön."]


def test_a_folder_is_found_by_the_environment_and_missed_by_name(
    folder: Path, make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = local_params(make_params, None, csv=None, score_min=None, score_max=None)
    monkeypatch.delenv("CALM_DATA", raising=False)
    with pytest.raises(SourceError, match=r"data\.datasets\.local\.root is not set and CALM_DATA is not either"):
        sources.fetch("local", params, Layout(tmp_path))
    monkeypatch.setenv("CALM_DATA", str(tmp_path / "absent"))
    with pytest.raises(SourceError, match="absent is not a folder"):
        sources.fetch("local", params, Layout(tmp_path))
    monkeypatch.setenv("CALM_DATA", str(folder))
    sources.fetch("local", params, Layout(tmp_path))
    assert str(tmp_path) not in (Layout(tmp_path).raw("local") / "manifest.json").read_text(encoding="utf-8")


def test_a_real_folder_of_photographs_with_a_csv(make_params: MakeParams, tmp_path: Path) -> None:
    root = Path(os.environ.get("CALM_DATA", "")) / "images"
    paths = sorted(root.glob("*.jpg"))[:30] if os.environ.get("CALM_DATA") else []
    if not paths:
        pytest.skip("CALM_DATA names no folder with images/*.jpg")
    mine = tmp_path / "mine"
    mine.mkdir()
    for path in paths:
        (mine / path.name).symlink_to(path)
    rows = [f"{path.name},{1 + number % 7}" for number, path in enumerate(paths)]
    (mine / "scores.csv").write_text("\n".join(["file,score", *rows]) + "\n", encoding="utf-8")
    params, layout = local_params(make_params, mine), Layout(tmp_path / "out")
    sources.fetch("local", params, layout)
    prepare("local", params, layout)
    assert quarantine(layout, "local").empty
    assert len(ratings(layout, "local")) == len(paths)
