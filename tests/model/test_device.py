"""Where a model runs is said by people, and what is not there is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from calm.model import pretrained
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


@pytest.mark.parametrize("dtype, precision", [(torch.bfloat16, "high"), (torch.float32, "highest")])
def test_a_gpu_multiplies_float32_as_tf32_beside_bfloat16_alone(
    dtype: torch.dtype, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[str] = []
    model: Any = torch.nn.Linear(1, 1, dtype=dtype)
    monkeypatch.setattr(model, "to", lambda _: model)
    monkeypatch.setattr(pretrained, "resolve_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch, "set_float32_matmul_precision", chosen.append)
    assert not pretrained.placed(model, Runtime()).weight.requires_grad
    assert chosen == [precision]
