"""The examples of docs/extending.md work as they stand: written into a copy of the checkout, and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([^`\n]+)`:\n\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
FRAGMENTS = re.findall(r"params\.yaml`:\n\n```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COPIED = ("calm", "tests", "workflow", ".dvc", ".dvcignore", "dvc.yaml", "params.yaml", "pyproject.toml")

MIRRORED = """
from pathlib import Path
from calm.evaluation.stage import evaluate
from calm.params import load_params
from calm.report.tables import read_metrics, section
from tests.evaluation.calm_world import build_world

world = build_world(Path("world"), photos=6, views=1)
tasks = load_params().evaluation.tasks
params = world.params.model_copy(update={"evaluation": world.params.evaluation.model_copy(update={"tasks": tasks})})
evaluate("mirrored", params, world.layout, model=world.blind())
print([row.label for row in section("mirrored", read_metrics(world.layout, "mirrored")).rows])
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the page's files and params, and nothing else, added."""
    root = tmp_path_factory.mktemp("extended")
    outside = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=outside)
        else:
            shutil.copy(source, root / name)
    for name, text in FILES.items():
        assert not (root / name).exists(), f"{name} exists already: docs/extending.md shall add it"
        (root / name).write_text(text, encoding="utf-8")
    params = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))
    for fragment in FRAGMENTS:
        merge(params, YAML(typ="safe").load(fragment))
    params["data"]["datasets"]["diary"]["root"] = str(diary(root / "diary"))
    write_params(root, params)
    return root


def merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def write_params(root: Path, params: dict[str, Any]) -> None:
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(params, file)


def diary(folder: Path) -> Path:
    """Two photographs, as the example's dataset has them."""
    folder.mkdir()
    for number, name in enumerate(("monday.png", "tuesday.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC).save(folder / name)
    votes = ["name,day,ones,twos,threes,fours,fives", "monday.png,1,0,0,1,0,1", "tuesday.png,2,3,1,0,0,0"]
    (folder / "votes.csv").write_text("\n".join(votes) + "\n", encoding="utf-8")
    (folder / "heldout.txt").write_text("tuesday.png\n", encoding="utf-8")
    return folder


def run(root: Path, *arguments: str) -> str:
    """Run Python in the copy, whose calm comes before the installed one; the output."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(root / "home")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def calm(root: Path, *arguments: str) -> None:
    run(root, "-c", "import calm.cli; calm.cli.app()", *arguments)


def test_the_page_has_an_example_of_each() -> None:
    assert [Path(name).parent.as_posix() for name in FILES] == [
        "calm/attributes/catalogue",
        "calm/data/sources",
        "calm/evaluation/tasks",
    ]
    assert len(FRAGMENTS) == 2


@pytest.mark.parametrize("name", FILES)
def test_the_examples_are_clean(checkout: Path, name: str) -> None:
    for arguments in (["check"], ["format", "--check", "--diff"]):
        run(checkout, "-m", "ruff", *arguments, name)


def test_the_attribute_is_in_the_taxonomy_and_passes_the_proofs_of_all_attributes(checkout: Path) -> None:
    known = "from calm.attributes.taxonomy import taxonomy; print(*[a.name for a in taxonomy().at('low')])"
    assert "shake" in run(checkout, "-c", known).split()
    if find_spec("mvtbdata") is None or find_spec("interior_photos") is None:
        pytest.skip("the proofs need the demo photographs (extra 'demo')")
    output = run(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/attributes", "-k", "shake")
    assert "test_edit_moves_its_measure" in run(
        checkout, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "tests/attributes", "-k", "shake"
    )
    assert re.search(r"\d+ passed", output) and "skipped" not in output, output


def test_the_dataset_passes_fetch_prepare_and_split(checkout: Path) -> None:
    params = YAML(typ="safe").load((checkout / "params.yaml").read_text(encoding="utf-8"))
    both = json.loads(json.dumps(params))
    del params["data"]["datasets"]["photos"]  # its part of the demo takes a minute, and is tested elsewhere
    for role, names in params["data"]["roles"].items():
        params["data"]["roles"][role] = [name for name in names if name != "photos"]
    write_params(checkout, params)
    try:
        for stage in (["fetch", "diary"], ["prepare", "diary"], ["split"]):
            calm(checkout, *stage)
    finally:
        write_params(checkout, both)
    prepared = checkout / "data/prepared/diary"
    ratings = pd.read_parquet(prepared / "ratings.parquet").set_index("item_id")["score"]
    assert ratings.to_dict() == {"monday": 4.0, "tuesday": 1.25}
    assert pd.read_parquet(prepared / "quarantine.parquet").empty
    split = pd.read_parquet(checkout / "data/splits/diary.parquet").set_index("item_id")
    assert split["split"].to_dict() == {"monday": "train", "tuesday": "test"}
    assert set(split["rule"]) == {"diary heldout.txt"}


def test_the_task_is_run_and_reported(checkout: Path) -> None:
    assert "SRCC, plain with mirrored" in run(checkout, "-c", MIRRORED)
    metrics = json.loads((checkout / "world/results/mirrored/metrics.json").read_text(encoding="utf-8"))
    assert metrics["items"] and metrics["difference"]["value"] > 0


def test_both_engines_find_dataset_and_task(checkout: Path) -> None:
    rows = "from calm.pipeline import plan; print(*[row.address for row in plan()])"
    assert {"fetch@diary", "prepare@diary", "evaluate@mirrored"} <= set(run(checkout, "-c", rows).split())
