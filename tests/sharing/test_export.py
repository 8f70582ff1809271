"""A checkpoint that leaves the house: read by transformers alone, with the same answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from benchmarks.alone import READER
from calm.assistant import Calm
from calm.sharing import export
from tests import tiny

# In a process of its own, in which neither calm nor a package that transformers does not need can be imported.
BLOCKED = """
import sys
for name in ("calm", "pydantic", "ruamel", "pandas", "pyarrow", "peft", "dvc", "typer", "scipy", "sklearn"):
    sys.modules[name] = None
"""


def test_transformers_alone_reads_it_and_answers_as_calm(trained_template: Any, tmp_path: Path) -> None:
    source = trained_template.layout.finetuned("scores")
    export(source, tmp_path / "exported")
    on_its_side = Image.Exif()
    on_its_side[ExifTags.Base.Orientation] = 6
    tiny.picture(0).resize((900, 600)).save(tmp_path / "photo.png", exif=on_its_side)
    command = [sys.executable, "-c", BLOCKED + READER, str(tmp_path / "exported"), str(tmp_path / "photo.png")]
    surroundings = {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=surroundings, check=False)
    assert done.returncode == 0, done.stderr
    score, said = json.loads(done.stdout.splitlines()[-1])
    (own,) = Calm.from_pretrained(source, device="cpu").score(tmp_path / "photo.png")
    assert score == pytest.approx(own.regression, abs=1e-4)
    assert said == own.raw


def test_calm_reads_it_too_and_nothing_of_calm_is_left_in_its_code(trained_template: Any, tmp_path: Path) -> None:
    source = trained_template.layout.finetuned("scores")
    export(source, tmp_path / "exported")
    for code in (tmp_path / "exported").glob("*.py"):
        assert "from calm" not in code.read_text(encoding="utf-8"), code.name
    pictures = tiny.pictures(2)
    ours, theirs = (Calm.from_pretrained(folder, device="cpu") for folder in (source, tmp_path / "exported"))
    assert ours.score(pictures) == theirs.score(pictures)


def test_a_folder_that_is_there_is_not_written_over(trained_template: Any, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="name a folder that is not"):
        export(trained_template.layout.finetuned("scores"), tmp_path)
