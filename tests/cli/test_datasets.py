"""`calm datasets` lists, shows and checks; every wrong name and missing file is one message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calm.cli import app
from calm.data import sources
from tests.data.conftest import picture

ROOT = Path(__file__).parents[2]
runner = CliRunner()


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("CALM_DATA", raising=False)


def test_the_list_has_every_dataset_with_state_size_and_licence() -> None:
    result = runner.invoke(app, ["datasets", "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.output)}
    assert sorted(rows) == sources.names()
    for name, row in rows.items():
        assert row["state"] in {"present", "partial", "missing"}
        assert row["size"] == sources.source_type(name).card.size
        assert row["licence"]
    table = runner.invoke(app, ["datasets"])
    assert table.exit_code == 0
    assert all(name in table.output for name in rows)


@pytest.mark.parametrize("name", sources.names())
def test_every_dataset_says_what_it_is_and_how_it_is_got(name: str) -> None:
    if name == "local":
        return  # needs settings: told below
    result = runner.invoke(app, ["datasets", "show", name])
    assert result.exit_code == 0, result.output
    card = sources.source_type(name).card
    for text in (card.title, card.licence, card.terms, card.citation, card.home):
        assert text in result.output
    assert card.acceptance in result.output


def test_a_dataset_that_needs_settings_says_which() -> None:
    result = runner.invoke(app, ["datasets", "show", "local"])
    assert result.exit_code == 1
    assert "data.datasets.local.licence: missing" in result.output


def test_a_check_counts_and_passes_where_nothing_contradicts(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        picture(number).save(tmp_path / "images" / f"{number}.jpg")
    result = runner.invoke(app, ["datasets", "check", "pexels", "--root", str(tmp_path), "--json"])
    found = json.loads(result.output)
    assert {one["key"]: one["found"] for one in found["counts"]}["images"] == 3
    assert (result.exit_code == 0) == found["passed"]


def test_labels_without_photographs_say_what_to_bring(tmp_path: Path) -> None:
    """Of AVT-ImageAppeal, as a part of it lies in a folder."""
    (tmp_path / "images").mkdir()
    steps = ",".join(f"votes{step}" for step in range(1, 6))
    (tmp_path / "items.csv").write_text(f"file,{steps}\nown__a.png,0,1,2,3,4\nown__b.png,1,1,1,1,1\n")
    result = runner.invoke(app, ["datasets", "check", "avt_image_appeal", "--root", str(tmp_path)])
    assert "none of 2 photographs that its labels name are here" in " ".join(result.output.split())
    picture(0).save(tmp_path / "images" / "own__a.png")
    result = runner.invoke(app, ["datasets", "check", "avt_image_appeal", "--root", str(tmp_path)])
    assert "1 photographs that labels name are not there: own__b" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere"], "unknown dataset 'nowhere'; calm knows: "),
        (["check", "photos", "--root", "."], "dataset 'photos' does not lie in a folder: --root has no effect"),
        (["check", "ava", "--root", "/nowhere"], "data.datasets.ava.root: /nowhere is not a folder"),
        (["check", "ava"], "dataset 'ava': data/downloads/ava is not a folder"),
    ],
)
def test_wrong_names_and_folders_are_one_message(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["datasets", *arguments])
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
