"""A tiny assembled model, made anew for every test that may change it; the paper's params."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from calm import profiles
from calm.model.build import Assembly, assemble
from calm.params import Params, parse_params
from tests import tiny

VICUNA_7B = 6_738_415_616
STATES = [["low", "brightness", "unchanged"], ["low", "brightness", "underexposed"], ["high", "style", "unchanged"]]


@pytest.fixture
def assembly(tiny_template: Any) -> Assembly:
    return assemble(tiny_template.params(), STATES)


@pytest.fixture(scope="session")
def paper() -> Params:
    """Of profile `paper`; `paper-e` has the same model (tests/plan/test_plan.py)."""
    text = profiles.merged("paper", tiny.REPOSITORY / "params.yaml", tiny.REPOSITORY / "profiles")
    return parse_params(YAML(typ="safe").load(text), "paper")


@pytest.fixture
def pixels(assembly: Assembly) -> torch.Tensor:
    """Three pictures, (3, 3, 64, 64)."""
    found: torch.Tensor = assembly.processor.image_processor(tiny.pictures(3), return_tensors="pt")["pixel_values"]
    return found
