"""`calm personalise`: a person's csv, and scores on that person's scale."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from calm.cli import app
from calm.cli.personalise import read_ratings, within
from tests import tiny


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for number in range(8):
        tiny.picture(number).save(tmp_path / f"p{number}.png")
    rows = [f"p{number}.png,{1 + number}" for number in range(6)] + ["p6.png,"]
    (tmp_path / "ratings.csv").write_text("file,score\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def personalise(trained: Any, *arguments: str) -> Any:
    model = str(trained.layout.finetuned("scores"))
    return CliRunner().invoke(app, ["personalise", *arguments, "--model", model, "--device", "cpu", "--json"])


def test_scores_are_read_onto_our_scale_and_the_unscored_are_listed(album: Path) -> None:
    given, unscored = read_ratings(album / "ratings.csv", 1, 7)
    assert given.scores == (1.0, 2.5, 4.0, 5.5, 7.0, 8.5)
    assert [path.name for path in given.paths] == [f"p{number}.png" for number in range(6)]
    assert [Path(name).name for name in unscored] == ["p6.png"]


@pytest.mark.parametrize("how", ["ridge", "in-context"])
def test_photographs_get_a_personal_and_a_generic_score(how: str, album: Path, trained_template: Any) -> None:
    csv, others = str(album / "ratings.csv"), [str(album / "p6.png"), str(album / "p7.png")]
    result = personalise(trained_template, csv, *others, "--how", how, "--max", "7")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [Path(row["file"]).name for row in rows] == ["p6.png", "p7.png"]
    assert all(row["score"] != row["generic"] for row in rows)
    assert "each left out in turn: SRCC" in result.stderr


def test_without_files_the_rows_without_a_score_are_scored(album: Path, trained_template: Any) -> None:
    rows = json.loads(personalise(trained_template, str(album / "ratings.csv")).stdout)
    assert [Path(row["file"]).name for row in rows] == ["p6.png"]


def test_another_scale_gives_the_same_scores_on_it(album: Path, trained_template: Any) -> None:
    csv = album / "ratings.csv"
    (ours,) = json.loads(personalise(trained_template, str(csv), "--min", "1", "--max", "10").stdout)
    rows = [f"p{number}.png,{10 * number}" for number in range(6)] + ["p6.png,"]
    csv.write_text("file,score\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (theirs,) = json.loads(personalise(trained_template, str(csv), "--min", "0", "--max", "90").stdout)
    assert theirs["score"] == pytest.approx(10 * (ours["score"] - 1), rel=1e-6)
    assert theirs["generic"] == pytest.approx(10 * (ours["generic"] - 1), rel=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,score\np0.png,1\n", "line 1: no column 'file'"),
        ("file,score\nnowhere.png,1\n", "line 2, column 'file': no photograph 'nowhere.png'"),
        ("file,score\np0.png,many\n", "line 2, column 'score': 'many' is not a number"),
        ("file,score\np0.png,11\n", r"line 2, column 'score': 11 is not in 1..10 \(--min, --max\)"),
        ("file,score\np0.png,nan\n", "line 2, column 'score': nan is not in"),
        ("file,score\np0.png,1\np0.png,2\n", "line 3, column 'file': 'p0.png' is scored twice"),
        ("file,score\np0.png,1\np1.png,2\n", "2 photographs are scored, at least 3"),
        ("file,score\np0.png,1\np1.png,1\np2.png,1\n", "the same score"),
        ("PK\x03\x04", "a workbook: save its sheet as csv"),
        ("", "not a table"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said_with_its_place(text: str, message: str, album: Path) -> None:
    (album / "ratings.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_ratings(album / "ratings.csv", 1, 10)


@pytest.mark.parametrize(
    ("encoding", "separator", "decimal"),
    [("utf-8", ",", "."), ("utf-8-sig", ";", ","), ("utf-16", "\t", ","), ("cp1252", ";", ",")],
)
@pytest.mark.parametrize("accents", ["NFC", "NFD"])
def test_a_csv_is_read_as_any_spreadsheet_saves_it(
    encoding: str, separator: str, decimal: str, accents: str, album: Path
) -> None:
    (album / unicodedata.normalize(accents, "été")).mkdir()
    for number in range(3):
        (album / f"p{number}.png").rename(album / unicodedata.normalize(accents, f"été/p{number}.png"))
    rows = ["file/score", *(f"été\\p{number}.png/{number + 1}.5" for number in range(3))]
    text = "\r\n".join(rows).replace(".5", f"{decimal}5").replace("/", separator)
    (album / "ratings.csv").write_bytes(text.encode(encoding))
    given, _ = read_ratings(album / "ratings.csv", 1, 10)
    assert given.scores == (1.5, 2.5, 3.5)
    assert [path.name for path in given.paths] == ["p0.png", "p1.png", "p2.png"]


def test_scores_stay_inside_the_scale_and_keep_their_order() -> None:
    scores = np.array([-20.0, -2.0, 0.5, 1.0, 1.2, 5.5, 9.8, 10.0, 12.6, 30.0])
    shares = within(scores)
    assert shares == sorted(shares) and 0 <= min(shares) and max(shares) <= 1
    assert shares[:3] == sorted(set(shares[:3])) and shares[5] == 0.5


def test_a_damaged_photograph_is_told_and_left_out(album: Path, trained_template: Any) -> None:
    (album / "p1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = personalise(trained_template, str(album / "ratings.csv"))
    assert result.exit_code == 0, result.output
    assert "p1.png: " in result.stderr and "your own 5 photographs" in result.stderr
    for number in (2, 3, 4):
        (album / f"p{number}.png").write_bytes(b"")
    result = personalise(trained_template, str(album / "ratings.csv"))
    assert result.exit_code == 1 and "2 of 6 scored photographs can be read; 3 are needed" in result.stderr


def test_nothing_to_score_is_told(album: Path, trained_template: Any) -> None:
    (album / "ratings.csv").write_text("file,score\np0.png,1\np1.png,2\np2.png,3\n", encoding="utf-8")
    result = personalise(trained_template, str(album / "ratings.csv"))
    assert result.exit_code == 1 and "every photograph has a score: name photographs to score" in result.stderr


def test_impossible_scales_and_missing_files_are_errors(album: Path) -> None:
    with pytest.raises(ValueError, match="--min 7 is not below --max 1"):
        read_ratings(album / "ratings.csv", 7, 1)
    with pytest.raises(FileNotFoundError, match="a csv with columns file, score"):
        read_ratings(album / "nothing.csv", 1, 7)
