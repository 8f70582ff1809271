"""Where a model runs is said by people, and what is not there is told."""

from __future__ import annotations

import pytest
import torch

from calm.model.pretrained import resolve_device
from calm.model.settings import Runtime


@pytest.mark.parametrize("device", ["cuda:9", "warp"])
def test_a_device_that_is_not_there_is_told_with_those_that_are(device: str) -> None:
    with pytest.raises(
        ValueError, match=rf"device '{device}' is not there: torch .* sees cpu.*; write one of these, or auto"
    ):
        resolve_device(Runtime(device=device))


def test_the_processor_is_always_there() -> None:
    assert resolve_device(Runtime(device="cpu")) == torch.device("cpu")
