"""A checkpoint that leaves the house: read by transformers alone, with the same answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calm.assistant import Calm
from calm.sharing import export
from tests import tiny

# In a process of its own, in which neither calm nor a package that transformers does not need can be imported.
READER = """
import sys
for name in ("calm", "pydantic", "ruamel", "pandas", "pyarrow", "peft", "dvc", "typer", "scipy", "sklearn"):
    sys.modules[name] = None
import json, torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, photograph = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
turn = {"role": "user", "content": "<image>\\nCan you give me the aesthetic score?"}
text = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
batch = processor(text=[text], images=[Image.open(photograph)], return_tensors="pt")
with torch.inference_mode():
    score = model(**batch).score.item()
    said = model.generate(**batch, max_new_tokens=5, do_sample=False)[:, batch["input_ids"].shape[1] :]
print(json.dumps([score, processor.batch_decode(said, skip_special_tokens=True)[0].strip()]))
"""


def test_transformers_alone_reads_it_and_answers_as_calm(trained_template: Any, tmp_path: Path) -> None:
    source = trained_template.layout.finetuned("scores")
    export(source, tmp_path / "exported")
    tiny.picture(0).save(tmp_path / "photo.png")
    command = [sys.executable, "-c", READER, str(tmp_path / "exported"), str(tmp_path / "photo.png")]
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
