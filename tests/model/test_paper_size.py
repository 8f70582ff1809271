"""CLIP ViT-L/14-336 and Vicuna-7B at full size on the meta device: whole passes, shapes and gradients."""

from __future__ import annotations

import pytest
import torch

from calm.model.modeling import CalmForConditionalGeneration
from calm.params import Params
from calm.plan.shapes import META, Lengths, add_adapters, build, open_stage, read_prompts, step_costs
from tests.model.conftest import VICUNA_7B

VISUAL = 3 * 32 + 576
LENGTHS = Lengths(prompt=26, answer=5)


@pytest.fixture(scope="module")
def model(paper: Params) -> CalmForConditionalGeneration:
    return build(paper, torch.bfloat16, fused=True)


def test_frozen_parts_are_bfloat16_and_what_is_trained_is_float32(
    model: CalmForConditionalGeneration, paper: Params
) -> None:
    for part, dtype in ((model.vision_tower, torch.bfloat16), (model.mfam, torch.float32)):
        assert {p.dtype for p in part.parameters()} == {dtype}
    add_adapters(model, paper)
    trained = open_stage(model, "scores", paper)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    frozen = [p for name, p in model.language_model.named_parameters() if "lora_" not in name]
    assert sum(p.numel() for p in frozen) == VICUNA_7B and {p.dtype for p in frozen} == {torch.bfloat16}
    assert {p.device for p in model.parameters()} == {META}


@pytest.mark.parametrize("stage", ["attributes", "scores"])  # tests/plan traces all four
def test_a_step_gives_gradients_to_what_it_trains_alone(
    model: CalmForConditionalGeneration, paper: Params, stage: str
) -> None:
    with torch.device(META):
        features = model.encode_images(torch.empty(2, 3, 336, 336))
    assert features.high.shape == (2, 576, 1024) and not features.high.requires_grad
    trained = open_stage(model, stage, paper)
    found = step_costs(model, stage, paper, 1, LENGTHS, 1 if stage == "attributes" else 0, encode=True)
    assert found.flops > 1e12 and found.peak > 0
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(trained)
    tokens = model.mfam(features)
    assert tokens.shape == (2, VISUAL, 4096)


def test_prompts_pass_at_full_size(model: CalmForConditionalGeneration) -> None:
    one = read_prompts(model, 1, LENGTHS).flops
    layers = VICUNA_7B - 2 * 32000 * 4096
    by_hand = 2 * layers * (VISUAL + LENGTHS.prompt)
    assert by_hand < one < 1.25 * by_hand
