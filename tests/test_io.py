"""Files are whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from calm import io
from calm.io import atomic_dir, atomic_file, read_table, write_json, write_table

SCHEMA = pa.schema([pa.field("name", pa.string(), nullable=False), pa.field("score", pa.float64())])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(target) as part:  # noqa: PT012
        part.write_text("new")
        raise RuntimeError("in the middle")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for name in ("first", "second"):
        with atomic_dir(target) as folder:
            (folder / name).write_text(name)
    assert os.listdir(target) == ["second"]


def test_what_a_killed_process_left_is_swept_by_the_next_and_never_has_the_final_name(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from calm.io import atomic_dir\n"
        "with atomic_dir(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_text('half'); print('writing', flush=True); time.sleep(60)\n"
    )
    target = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    assert len(os.listdir(tmp_path)) == 1
    with atomic_dir(target) as folder:
        (folder / "whole").write_text("whole")
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(target) == ["whole"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder  # type: ignore[misc]
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_an_error_that_names_the_output(small_disk: Path) -> None:
    message = r"could not write .*out\.bin.*nothing was left"
    with pytest.raises(OSError, match=message), atomic_file(small_disk / "out.bin") as part:
        part.write_bytes(b"x" * 2**20)
    assert os.listdir(small_disk) == []


def test_tables_must_fit_their_schema(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(ValueError, match=r"t\.parquet: missing columns \['score'\]"):
        write_table(path, pd.DataFrame({"name": ["a"]}), SCHEMA)
    with pytest.raises(ValueError, match="column 'name' is empty in row 1"):
        write_table(path, pd.DataFrame({"name": ["a", None], "score": [1.0, 2.0]}), SCHEMA)
    assert not path.exists()
    frame = pd.DataFrame({"name": ["a", "b"], "score": [1.0, None]})
    write_table(path, frame, SCHEMA)
    pd.testing.assert_frame_equal(read_table(path, SCHEMA), frame)
    with pytest.raises(FileNotFoundError, match="dvc repro"):
        read_table(tmp_path / "absent.parquet", SCHEMA)


def test_tables_are_byte_equal_when_written_again(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": ["a", "b"], "score": [1.0, None]})
    for name in ("one", "two"):
        write_table(tmp_path / name, frame, SCHEMA)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "m.json", {"srcc": float("nan")})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""Other words."""\n\n# a comment\ndef one() -> int:\n    """And here."""\n    return (1)\n', True),
        ('"""Words."""\ndef one() -> int:\n    """A docstring."""\n    return 2\n', False),
    ],
)
def test_code_is_what_it_does_and_not_what_it_says(text: str, same: bool, tmp_path: Path) -> None:
    (tmp_path / "before.py").write_text('"""Words."""\ndef one() -> int:\n    """A docstring."""\n    return 1\n')
    (tmp_path / "after.py").write_text(text)
    assert (io._meaning(tmp_path / "before.py") == io._meaning(tmp_path / "after.py")) == same
