"""An exported checkpoint read where calm is not: an environment of its own with torch and transformers alone.

    python -m benchmarks.alone FOLDER PHOTOGRAPH...

Into FOLDER go the environment, with the versions that calm is locked to, and the checkpoint that `calm export` writes
of the model that comes with calm. Scores and texts of both are printed; if they differ, the command fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

from PIL import Image

from calm.assistant import Calm
from calm.sharing import export

REQUIREMENTS = Path(__file__).parents[1] / "requirements"
PACKAGES = ("transformers", "safetensors", "pillow")
TOLERANCE = 1e-4  # of a score: the same weights elsewhere in memory may be added up in another order
READER = """
import json, sys, torch
from importlib.util import find_spec
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
assert find_spec("calm") is None, "calm is here"
folder, *photographs = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
turn = {"role": "user", "content": "<image>\\nCan you give me the aesthetic score?"}
text = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
for photograph in photographs:
    batch = processor(text=[text], images=[Image.open(photograph)], return_tensors="pt")
    with torch.inference_mode():
        score = model(**batch).score.item()
        said = model.generate(**batch, max_new_tokens=5, do_sample=False)[:, batch["input_ids"].shape[1] :]
    print(json.dumps([score, processor.batch_decode(said, skip_special_tokens=True)[0].strip()]))
"""


def environment(folder: Path) -> Path:
    """The Python of a fresh virtual environment, made unless it is there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        lock = (REQUIREMENTS / "base.lock").read_text(encoding="utf-8")
        pins = [found[0] for name in PACKAGES if (found := re.search(rf"^{name}==[\w.]+", lock, re.MULTILINE))]
        torch = (REQUIREMENTS / "torch.txt").read_text(encoding="utf-8").strip()
        subprocess.run([python, "-m", "pip", "install", "--quiet", torch, *pins], check=True)
    return python


def read_alone(python: Path, checkpoint: Path, photographs: list[Path]) -> list[tuple[float, str]]:
    """Score and text of each photograph, by a process that has no way to calm and none to a network."""
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    surroundings |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(checkpoint.parent / "hub")}
    command: list[str | Path] = [python, "-I", "-c", READER, checkpoint, *photographs]
    done = subprocess.run(command, env=surroundings, stdout=subprocess.PIPE, text=True, check=True)
    return [(score, said) for score, said in map(json.loads, done.stdout.splitlines())]


def main() -> None:
    """Print what both say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("photographs", type=Path, nargs="+")
    arguments = parser.parse_args()
    python, checkpoint = environment(arguments.folder / "environment"), arguments.folder / "checkpoint"
    export(None, checkpoint)
    photographs = [path.resolve() for path in arguments.photographs]
    theirs = read_alone(python, checkpoint.resolve(), photographs)
    ours = Calm.from_pretrained(device="cpu").score([Image.open(path) for path in photographs], batch_size=1)
    differ = 0
    for path, own, (score, said) in zip(photographs, ours, theirs, strict=True):
        print(f"{path.name}: calm {own.regression:.6f} {own.raw}  alone {score:.6f} {said}")
        differ += abs(own.regression - score) > TOLERANCE or own.raw != said
    if differ:
        sys.exit(f"{differ} of {len(photographs)} differ")


if __name__ == "__main__":
    main()
