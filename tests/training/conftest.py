"""Bits are compared, so sums are made by one thread; a tiny assembled model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from calm.model.build import Assembly, assemble


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def assembly(tiny_template: Any) -> Assembly:
    return assemble(tiny_template.params())
