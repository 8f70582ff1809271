"""Files that are whole or absent: atomic writes, hashes, parquet tables that must fit their schema."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # functions of tables import them: whoever asks for a score need not wait for them
    import pandas as pd
    import pyarrow as pa

PART = ".part"  # end of every temporary name; .dvcignore leaves them out


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success flush it to disk and rename it, on failure leave nothing.

    Raises:
        OSError: the disk is full or not writable; the message names `target`.
    """
    handle, name = tempfile.mkstemp(prefix=_prefix(target), suffix=PART, dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        _flush(part)
        part.chmod(0o644)
        os.replace(part, target)
    except OSError as error:
        raise _named(error, target) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_dir(target: Path) -> Iterator[Path]:
    """As `atomic_file` for a folder: `target` is replaced as a whole once the block has ended well."""
    part = Path(tempfile.mkdtemp(prefix=_prefix(target), suffix=PART, dir=target.parent))
    try:
        yield part
        for path in sorted(part.rglob("*")):
            if path.is_file():
                _flush(path)
        part.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        os.replace(part, target)
    except OSError as error:
        raise _named(error, target) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _prefix(target: Path) -> str:
    """Start of a temporary name that says whose it is; what killed processes left beside `target` is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*{PART}"):
        owner = left.name.removeprefix(f".{target.name}.").split(".")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return f".{target.name}.{os.getpid()}."


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _named(error: OSError, target: Path) -> OSError:
    """The same error, saying which output could not be written."""
    return type(error)(
        error.errno, f"could not write {target}: {error.strerror or error}; nothing was left under that name"
    )


def write_json(target: Path, value: Any) -> None:
    """Write sorted, indented JSON atomically. NaN and infinity are refused: null with a reason says more."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(target) as part:
        part.write_text(text, encoding="utf-8")


def write_table(target: Path, frame: pd.DataFrame, schema: pa.Schema) -> None:
    """Write a parquet file that fits `schema` exactly.

    Raises:
        ValueError: a column is missing, unknown, of another type, or null where the schema says it cannot be.
    """
    import pyarrow.parquet as pq

    table = to_table(frame, schema, str(target))
    with atomic_file(target) as part:
        pq.write_table(table, part, compression="zstd")


def to_table(frame: pd.DataFrame, schema: pa.Schema, where: str) -> pa.Table:
    """Convert a frame to an Arrow table of `schema`; `where` names the table in errors."""
    import pyarrow as pa

    expected, found = set(schema.names), set(frame.columns)
    if expected != found:
        raise ValueError(
            f"{where}: missing columns {sorted(expected - found)}, unknown columns {sorted(found - expected)}"
        )
    for field in schema:
        empty = frame[field.name].isna().to_numpy()
        if not field.nullable and empty.any():
            raise ValueError(f"{where}: column '{field.name}' is empty in row {int(empty.argmax())}")
    try:
        table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False, safe=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{where}: {error}") from error
    return table.replace_schema_metadata(None)


def read_table(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """As `read_arrow`, as a frame."""
    return read_arrow(path, schema, columns).to_pandas()


def read_arrow(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet file, or some columns of it, and check it against `schema`.

    Raises:
        FileNotFoundError: the file is missing; the message says that a stage has to run first.
        ValueError: its columns or types are not those of `schema`.
    """
    import pyarrow.parquet as pq

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run the stage that makes it (`dvc repro`), or `dvc pull`")
    with pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(schema, check_metadata=False):
            raise ValueError(f"{path}: expected columns\n{schema.to_string()}\nfound\n{file.schema_arrow.to_string()}")
        table = file.read(None if columns is None else list(columns))
    for field in table.schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(f"{path}: column '{field.name}' has empty rows: run the stage that makes the file again")
    return table


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Hex sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@cache
def code_sha256(*packages: str) -> str:
    """Hash of what packages of calm do, as they stand on disk: work killed before an edit must not go on after it.

    Comments, docstrings and the layout of lines do nothing, so that an edit of them costs no training.
    """
    root = Path(__file__).parent
    files = sorted(path for name in packages for path in (root / name).rglob("*") if path.suffix in (".py", ".yaml"))
    return sha256_text(json.dumps([[path.relative_to(root).as_posix(), _meaning(path)] for path in files]))


def _meaning(path: Path) -> str:
    """A hash of a file; of Python, of its syntax tree without docstrings."""
    if path.suffix != ".py":
        return sha256_file(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return sha256_text(ast.dump(tree))
