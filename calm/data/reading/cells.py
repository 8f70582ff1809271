"""Label files of datasets: delimited tables, lists of names, names of photographs; every wrong cell is called by place.

Tables are read as text first and turned into numbers by column, so that an error can name file, line, column and cell,
and so that neither the machine's locale nor a guess at a column's type changes what is read.
"""

from __future__ import annotations

import codecs
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pandas.errors import EmptyDataError, ParserError, ParserWarning

from calm.data import SourceError

BLANKS = r"\s+"  # separator: any run of blanks, as in AVA.txt


def read_cells(
    path: Path, separator: str = ",", names: Sequence[str] | None = None, encoding: str = "utf-8-sig"
) -> pd.DataFrame:
    """Every cell of a table as text without the blanks around it; empty lines are left out.

    Args:
        names: of the columns, where the file has no header; else they are the header's cells, stripped too.

    Returns:
        One row per line with the line's number in the file as index.

    Raises:
        SourceError: it is no such table, or a line has more cells than there are columns; missing ones are empty.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)  # too many cells would be cut off with a warning
            cells = pd.read_csv(
                path,
                sep=separator,
                names=None if names is None else list(names),
                header=0 if names is None else None,
                index_col=False,
                dtype=str,
                na_filter=False,
                skip_blank_lines=False,
                encoding=encoding,
            )
    except (UnicodeDecodeError, EmptyDataError, ParserError, ParserWarning) as error:
        named = encoding.upper().removesuffix("-SIG")
        raise SourceError(
            f"{path}: not a table in {named} with separator {separator!r}: {str(error).strip()}"
        ) from None
    cells.columns = pd.Index([str(name).strip() for name in cells.columns])
    cells.index = pd.RangeIndex(first := 2 if names is None else 1, first + len(cells))
    cells = cells.apply(lambda column: column.str.strip())
    return cells[(cells != "").any(axis=1)]


def read_spreadsheet(path: Path) -> pd.DataFrame:
    """As `read_cells`, of a csv as spreadsheets save it (`written_how`)."""
    encoding, separator = written_how(path)
    return read_cells(path, separator, encoding=encoding)


def written_how(path: Path) -> tuple[str, str]:
    """Encoding and separator of a csv by a spreadsheet: UTF-8, UTF-16 or Windows-1252; `,`, `;` or tabs.

    Raises:
        SourceError: it is a workbook (xlsx, ods).
    """
    data = path.read_bytes()
    if data.startswith(b"PK\x03\x04"):
        raise SourceError(f"{path}: a workbook: save its sheet as csv")
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        encoding, text = "cp1252", data.decode("cp1252", errors="replace")
    header = text.partition("\n")[0]
    return encoding, max(",;\t", key=header.count)


def spellings(name: str) -> Iterator[str]:
    """A file's name as tables write it: with either slash, and either way to write an accent."""
    for slashed in (name, name.replace("\\", "/")):
        for form in ("NFC", "NFD"):
            yield unicodedata.normalize(form, slashed)


def rating(text: str, low: float, high: float, where: str, hint: str = "") -> float:
    """A score, with a point or a decimal comma.

    Raises:
        SourceError: it is no number or lies outside low..high; `where` names file and line.
    """
    try:
        score = float(text.replace(",", "."))
    except ValueError:
        raise SourceError(f"{where}, column 'score': '{text}' is not a number") from None
    if not low <= score <= high:  # nan neither
        raise SourceError(f"{where}, column 'score': {text} is not in {low:g}..{high:g}{hint}")
    return score


def require(cells: pd.DataFrame, columns: Sequence[str], path: Path) -> None:
    """Raises SourceError if a column is not there."""
    for name in columns:
        if name not in cells.columns:
            raise SourceError(f"{path}, line 1: no column '{name}'; found: {', '.join(cells.columns) or 'nothing'}")


def numbers(
    cells: pd.DataFrame,
    columns: Sequence[str],
    path: Path,
    low: float = -np.inf,
    high: float = np.inf,
    whole: bool = False,
) -> np.ndarray:
    """Cells of some columns as numbers: (rows, columns), float64, or int64 if they are to be whole.

    Raises:
        SourceError: a cell is no number or lies outside low..high; the first such column's first such line is named.
    """
    require(cells, columns, path)
    kind = "a whole number" if whole else "a number"
    bounds = "" if (low, high) == (-np.inf, np.inf) else f" in {low:g}..{high:g}"
    found = np.empty((len(cells), len(columns)))
    for position, name in enumerate(columns):
        values = pd.to_numeric(cells[name], errors="coerce").to_numpy(float)
        wrong = ~((values >= low) & (values <= high))
        if whole:
            wrong |= values != np.round(values)
        refuse(cells, wrong, name, path, f"is not {kind}{bounds}")
        found[:, position] = values
    return found.astype(np.int64) if whole else found


def ids(cells: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """Names of photographs without folders and suffix.

    Raises:
        SourceError: a name is empty.
    """
    require(cells, [column], path)
    found = stems(cells[column])
    refuse(cells, found == "", column, path, "names no photograph")
    return found


def numbered(cells: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """As `ids` where names are whole numbers, as in AVA: without leading zeros.

    Raises:
        SourceError: a name is something else.
    """
    found = ids(cells, column, path)
    refuse(cells, ~found.str.fullmatch("[0-9]+"), column, path, "is not a photograph's number")
    return found.str.lstrip("0").replace("", "0")


def stems(names: pd.Series) -> pd.Series:
    """File names without folders (of either slash) and suffix."""
    return names.str.replace(r"^.*[/\\]", "", regex=True).str.replace(r"\.[A-Za-z]{2,5}$", "", regex=True)


def refuse_doubles(found: pd.Series, column: str, path: Path) -> None:
    """Raises SourceError if a value is there twice; the index are line numbers."""
    again = found.duplicated()
    if again.any():
        row = int(again.to_numpy().argmax())
        value = found.iloc[row]
        before = found.index[found == value][0]
        raise SourceError(f"{path}, line {found.index[row]}, column '{column}': '{value}' is in line {before} already")


def refuse(cells: pd.DataFrame, wrong: ArrayLike, column: str, path: Path, what: str) -> None:
    """Raises SourceError about the first row of `cells` that is wrong (one truth a row), if any."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        line, value = cells.index[rows[0]], cells[column].iloc[rows[0]]
        raise SourceError(f"{path}, line {line}, column '{column}': '{value}' {what}")


def read_list(path: Path) -> frozenset[str]:
    """Numbers of photographs, one a line, as in AVA's lists.

    Raises:
        SourceError: a line is no number, or there is none.
    """
    cells = read_cells(path, BLANKS, ["image"])
    if cells.empty:
        raise SourceError(f"{path}: the list is empty")
    return frozenset(numbered(cells, "image", path))


def means(votes: np.ndarray, low: int = 1) -> np.ndarray:
    """Mean of histograms (rows, steps) over the scale low, low + 1, ...; rows without votes are not allowed."""
    steps = np.arange(low, low + votes.shape[1])
    return np.asarray((votes @ steps) / votes.sum(axis=1))
