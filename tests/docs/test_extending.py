"""The examples of docs/extending.md work as they stand: written into a copy of the checkout, and used."""

from __future__ import annotations

import json
import os
import re
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

from tests import forked
from tests.conftest import REPOSITORY, copied

PAGE = (REPOSITORY / "docs/extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([^`\n]+)`:\n\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
ADDED = re.findall(r"^At the end of `([^`\n]+)`:\n\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CHANGES = re.findall(r"^```diff\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
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

STAGES = """
from calm.cli import app

for stage in (["fetch", "diary"], ["prepare", "diary"], ["split"]):
    assert not app(stage, standalone_mode=False), stage
"""

PARTS = """
import torch
from calm.model.build import calm_config
from calm.model.modeling import CalmForConditionalGeneration
from calm.params import load_params

params = load_params()
thematic = params.mfam.thematic.model_copy(update={"grid": 0, "content": ["high_mean", "summary", "summary_deviation"]})
levels = params.mfam.levels.model_copy(update={"low": [4], "middle": [8], "high": [-2]})
mfam = params.mfam.model_copy(update={"grid": 0, "thematic": thematic, "levels": levels})
for vision in ("google/siglip2-base-patch16-256", "facebook/dinov3-vits16-pretrain-lvd1689m"):
    named = params.parts.model_copy(update={"vision": vision, "language": "Qwen/Qwen3-0.6B"})
    config = calm_config(params.model_copy(update={"parts": named, "mfam": mfam}))
    with torch.device("meta"):
        model = CalmForConditionalGeneration(config)
        tokens = model.encode_images(torch.empty(2, 3, config.image_size, config.image_size))
        visual = model.mfam(tokens)
        read = model(inputs_embeds=visual, visual_tokens=visual, logits_to_keep=1)
    assert visual.shape == (2, config.vision_tokens, 1024), visual.shape
    assert read.score.shape == (2,) and read.logits.shape == (2, 1, 151936)
    print(config.vision_config.model_type, *tokens.high.shape[1:], min(config.placeholder_token_ids))
"""

LOSSES = """
from pathlib import Path
from calm.attributes.taxonomy import taxonomy
from calm.model.build import assemble
from calm.training.pretrain import state_table
from calm.training.pretrain import attribute_objective
from tests import tiny

params = tiny.params(tiny.save_parts(Path("tiny/parts")))
layout = tiny.build_data(Path("tiny/checkout"), params)
for across in (0.5, 1.0):
    options = params.pretrain.attributes
    contrastive = options.contrastive.model_copy(update={"across": across})
    assembly = assemble(params, state_table(taxonomy()))
    options = options.model_copy(update={"contrastive": contrastive})
    objective, _ = attribute_objective(assembly, options, params, layout)
    losses = objective.losses(0)
    print(params.pretrain.attributes.contrastive.across, float(losses["distinct"]), float(losses["contrastive_low"]))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the page's files and params added, and one dataset less."""
    root = copied(tmp_path_factory.mktemp("extended"), *COPIED)
    for name, text in FILES.items():
        assert not (root / name).exists(), f"{name} exists already: docs/extending.md shall add it"
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    for name, text in ADDED:
        with (root / name).open("a", encoding="utf-8") as file:
            file.write(text)
    for change in CHANGES:
        subprocess.run(["git", "apply", "-"], cwd=root, input=change, text=True, check=True)
    params = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))
    for fragment in FRAGMENTS:
        merge(params, YAML(typ="safe").load(fragment))
    params["data"]["datasets"]["diary"]["root"] = str(diary(root / "diary"))
    del params["data"]["datasets"]["photos"]  # its part of the demo takes a minute, and is tested elsewhere
    for role, names in params["data"]["roles"].items():
        params["data"]["roles"][role] = [name for name in names if name != "photos"]
    YAML(typ="safe").dump(params, root / "params.yaml")
    return root


def merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


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


def run(root: Path, code: str) -> str:
    """Run Python in the copy, whose calm comes before the installed one; the output."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(root / "home")}
    out, errors = root / "out.txt", root / "errors.txt"
    process = forked.start(program, str(root), code, folder=root, environment=environment, out=out, errors=errors)
    process.join()
    assert process.exitcode == 0, out.read_text() + errors.read_text()
    return out.read_text(encoding="utf-8")


def program(root: str, code: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("calm", "tests")]:
        del sys.modules[name]
    sys.path.insert(0, root)
    exec(code, {"__name__": "__main__"})


def test_the_page_has_an_example_of_each() -> None:
    assert [Path(name).parent.as_posix() for name in FILES] == [
        "calm/attributes/catalogue",
        "calm/data/sources/diary",
        "calm/evaluation/tasks",
        "calm/training/losses",
    ]
    assert len(FRAGMENTS) == 4
    assert [name for name, _ in ADDED] == ["calm/model/parts.py"] * 2
    assert len(CHANGES) == 1


@pytest.mark.parametrize("name", [*FILES, "calm/model/parts.py"])
def test_the_examples_are_clean(checkout: Path, name: str) -> None:
    for arguments in (["check"], ["format", "--check", "--diff"]):
        subprocess.run([sys.executable, "-m", "ruff", *arguments, name], cwd=checkout, check=True)


def test_the_attribute_is_in_the_taxonomy_and_passes_the_proofs_of_all_attributes(checkout: Path) -> None:
    known = "from calm.attributes.taxonomy import taxonomy; print(*[a.name for a in taxonomy().at('low')])"
    assert "exposures" in run(checkout, known).split()
    if find_spec("mvtbdata") is None or find_spec("interior_photos") is None:
        pytest.skip("the proofs need the demo photographs (extra 'demo')")
    arguments = ["-v", "-p", "no:cacheprovider", "-p", "no:xdist", "tests/attributes", "-k", "exposures or doubled"]
    output = run(checkout, f"import pytest, sys; sys.exit(pytest.main({arguments}))")
    assert "test_edit_moves_its_measure" in output
    assert re.search(r"\d+ passed", output) and "skipped" not in output, output


def test_the_dataset_passes_fetch_prepare_and_split(checkout: Path) -> None:
    run(checkout, STAGES)
    prepared = checkout / "data/prepared/diary"
    ratings = pd.read_parquet(prepared / "ratings.parquet").set_index("item_id")["score"]
    assert ratings.to_dict() == {"monday": 4.0, "tuesday": 1.25}
    assert pd.read_parquet(prepared / "quarantine.parquet").empty
    split = pd.read_parquet(checkout / "data/splits/diary.parquet").set_index("item_id")
    assert split["split"].to_dict() == {"monday": "train", "tuesday": "test"}
    assert set(split["rule"]) == {"diary heldout.txt"}


def test_the_task_is_run_and_reported(checkout: Path) -> None:
    assert "SRCC, plain with mirrored" in run(checkout, MIRRORED)
    metrics = json.loads((checkout / "world/results/mirrored/metrics.json").read_text(encoding="utf-8"))
    assert metrics["items"] and metrics["difference"]["value"] > 0


def test_the_parts_are_built_on_the_meta_device(checkout: Path) -> None:
    siglip, dino = run(checkout, PARTS).splitlines()
    assert siglip == "siglip_vision_model 256 768 151936"
    assert dino == "dinov3_vit 196 384 151936"


def test_the_loss_and_the_setting_act(checkout: Path) -> None:
    half, whole = [[float(word) for word in line.split()] for line in run(checkout, LOSSES).splitlines()]
    assert half[0] == whole[0] == 0.5
    assert half[1] == whole[1] and 0 < half[1] < 1
    assert 0 < half[2] < whole[2]


def test_both_engines_find_dataset_and_task(checkout: Path) -> None:
    rows = "from calm.pipeline import plan; print(*[row.address for row in plan()])"
    assert {"fetch@diary", "prepare@diary", "evaluate@mirrored"} <= set(run(checkout, rows).split())
