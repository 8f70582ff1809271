"""Tables of labels: every cell is read the same everywhere, every wrong one is named by file, line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm.data import SourceError
from calm.data.reading.cells import BLANKS, ids, numbered, numbers, read_cells, read_list, refuse_doubles


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Where the tests put a table."""
    return tmp_path / "table.csv"


def test_blanks_around_cells_and_empty_lines_do_not_count(table: Path) -> None:
    table.write_bytes(b"\xef\xbb\xbfworker, imagePair , score\r\n A1, x.jpg,3\r\n\r\n,,\r\nA2,y.jpg , 4\r\n")
    cells = read_cells(table)
    assert cells.columns.tolist() == ["worker", "imagePair", "score"]
    assert cells.to_dict("index") == {
        2: {"worker": "A1", "imagePair": "x.jpg", "score": "3"},
        5: {"worker": "A2", "imagePair": "y.jpg", "score": "4"},
    }


def test_a_table_without_header_takes_names_and_leading_blanks(table: Path) -> None:
    table.write_text(" a.jpg 0.5\nb.jpg  0.25 \n")
    cells = read_cells(table, BLANKS, ["image", "score"])
    assert cells["image"].tolist() == ["a.jpg", "b.jpg"]
    assert numbers(cells, ["score"], table)[:, 0].tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,4,5\n", r"table\.csv: not a table .*line 3, saw 3"),
        ("a,b\n1,2,3\n", r"table\.csv: not a table .*Length of header"),
        ('a,b\n"1,2\n', r"EOF inside string"),
        ("", r"No columns to parse"),
    ],
)
def test_a_table_that_is_none_is_refused(table: Path, text: str, message: str) -> None:
    table.write_text(text)
    with pytest.raises(SourceError, match=message):
        read_cells(table)


def test_another_encoding_is_refused(table: Path) -> None:
    table.write_bytes("größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(SourceError, match="not a table in UTF-8"):
        read_cells(table)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("good", r"line 3, column 'score': 'good' is not a number in 1\.\.5"),
        ("3,5", r"not a table"),
        ("", r"line 3, column 'score': '' is not a number"),
        ("nan", r"'nan' is not a number"),
        ("inf", r"'inf' is not a number"),
        ("0.5", r"'0\.5' is not a number in 1\.\.5"),
        ("1e400", r"'1e400' is not a number"),
    ],
)
def test_a_cell_that_is_no_number_in_range_is_named(table: Path, cell: str, message: str) -> None:
    table.write_text(f"image,score\na,1\nb,{cell}\n")
    with pytest.raises(SourceError, match=message):
        numbers(read_cells(table), ["score"], table, 1, 5)


def test_counts_are_whole(table: Path) -> None:
    table.write_text("image,votes\na,1\nb,2.5\n")
    with pytest.raises(SourceError, match=r"line 3, column 'votes': '2\.5' is not a whole number in 0\.\.9"):
        numbers(read_cells(table), ["votes"], table, 0, 9, whole=True)


def test_a_missing_column_is_named_with_those_that_are_there(table: Path) -> None:
    table.write_text("image;score\na;1\n")
    with pytest.raises(SourceError, match=r"line 1: no column 'score'; found: image;score"):
        numbers(read_cells(table), ["score"], table)


def test_photographs_are_called_by_their_names_without_folder_and_suffix(table: Path) -> None:
    table.write_text("image\nAVA/images/953417.jpg\n00012.JPEG\nC:\\photos\\7.png\n953\n0.jpg\n")
    assert numbered(read_cells(table), "image", table).tolist() == ["953417", "12", "7", "953", "0"]
    table.write_text("image\nx/farm1_2_b.jpg\na.b.jpg\n")
    assert ids(read_cells(table), "image", table).tolist() == ["farm1_2_b", "a.b"]


def test_names_that_are_none_are_refused(table: Path) -> None:
    table.write_text("image,score\n12.jpg,1\n12b.jpg,2\n")
    with pytest.raises(SourceError, match=r"line 3, column 'image': '12b\.jpg' is not a photograph's number"):
        numbered(read_cells(table), "image", table)
    table.write_text("image,score\nfolder/,2\n")
    with pytest.raises(SourceError, match=r"line 2, column 'image': 'folder/' names no photograph"):
        ids(read_cells(table), "image", table)


def test_doubles_are_named_by_both_lines(table: Path) -> None:
    table.write_text("image\na\nb\na\n")
    with pytest.raises(SourceError, match=r"line 4, column 'image': 'a' is in line 2 already"):
        refuse_doubles(read_cells(table)["image"], "image", table)


def test_a_list_holds_numbers(table: Path) -> None:
    table.write_text("12\n\n0013\n")
    assert read_list(table) == {"12", "13"}
    table.write_text("12\nx\n")
    with pytest.raises(SourceError, match="line 2, column 'image': 'x'"):
        read_list(table)
    table.write_text("\n")
    with pytest.raises(SourceError, match=r"the list is empty|No columns"):
        read_list(table)
