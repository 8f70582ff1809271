"""Frozen parts never build a graph: what a stage does not train gets no gradient, and the encoder keeps nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from calm.model.modeling import CalmForConditionalGeneration
from calm.plan.shapes import STAGES
from tests.plan.real import step_of


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_does_not_train_gets_no_gradient_and_the_encoder_keeps_nothing(
    stage: str, trained_template: Any, trained_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = trained_template.params(runtime__keep_features=False, pretrain__attributes__views=0)
    step = step_of(stage, params, trained_world.layout, monkeypatch)
    kept: list[int] = []
    encode = CalmForConditionalGeneration.encode_images

    def watched(self: CalmForConditionalGeneration, pixels: torch.Tensor) -> Any:
        saved: list[torch.Tensor] = []
        with (
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(
                lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor
            ),
        ):
            found = encode(self, pixels)
        kept.append(len(saved))
        assert not any(found[level].requires_grad for level in ("low", "middle", "high"))
        return found

    monkeypatch.setattr(CalmForConditionalGeneration, "encode_images", watched)
    step.loss().backward()
    assert kept and not any(kept)
    trained = {id(parameter) for parameter in step.trained.values()}
    for name, parameter in step.model.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in trained), name
    assert all(parameter.grad is None for parameter in step.objective.assembly.model.vision_tower.parameters())
