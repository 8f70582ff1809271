"""A tiny assembled model, made anew for every test that may change it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from calm.model.build import Assembly, assemble
from tests import tiny

STATES = [["low", "brightness", "unchanged"], ["low", "brightness", "underexposed"], ["high", "style", "unchanged"]]


@pytest.fixture
def assembly(tiny_template: Any) -> Assembly:
    return assemble(tiny_template.params(), STATES)


@pytest.fixture
def pixels(assembly: Assembly) -> torch.Tensor:
    """Three pictures, (3, 3, 64, 64)."""
    found: torch.Tensor = assembly.processor.image_processor(tiny.pictures(3), return_tensors="pt")["pixel_values"]
    return found
