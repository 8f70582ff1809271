"""docs/cluster.md names every key of the strategy, and stages and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

from ruamel.yaml import YAML

from calm.training.settings import Strategy

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/cluster.md").read_text(encoding="utf-8")


def test_every_key_and_value_of_the_strategy_is_explained() -> None:
    for key, field in Strategy.model_fields.items():
        assert f"`{key}`" in PAGE, key
        for value in getattr(field.annotation, "__args__", ()):
            assert re.search(rf"\b{value}\b", PAGE), (key, value)


def test_stages_that_need_internet_are_stages() -> None:
    stages = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    (line,) = re.findall(r"^dvc repro (.+)$", PAGE, re.MULTILINE)
    assert set(line.split()) <= set(stages)


def test_files_that_it_names_exist() -> None:
    for name in (
        "workflow/deepspeed/zero2.json",
        "workflow/deepspeed/zero3.json",
        "workflow/profiles/slurm/config.yaml",
    ):
        assert name in PAGE or Path(name).name in PAGE
        assert (REPOSITORY / name).is_file()
