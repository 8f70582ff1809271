"""The paper's model: CLIP ViT-L/14-336, Vicuna-7B, three Q-formers. Shapes alone, no weights, no network."""

from __future__ import annotations

import pytest
import torch

from calm.model.build import calm_config
from calm.model.configuration import CalmConfig
from calm.model.modeling import CalmForConditionalGeneration
from calm.params import Params
from tests.model.conftest import VICUNA_7B


@pytest.fixture(scope="module")
def config(paper: Params) -> CalmConfig:
    return calm_config(paper)


@pytest.fixture(scope="module")
def model(config: CalmConfig) -> CalmForConditionalGeneration:
    with torch.device("meta"):
        return CalmForConditionalGeneration(config)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def qformer_parameters(width: int = 768, encoder: int = 1024, layers: int = 12, every: int = 2) -> int:
    """By hand: BERT-base's layers without their text half, cross-attention in every second one."""
    linear = lambda n_in, n_out: n_in * n_out + n_out  # noqa: E731
    norm = 2 * width
    attention = 4 * linear(width, width) + norm
    cross = 2 * linear(width, width) + 2 * linear(encoder, width) + norm
    feed_forward = linear(width, 4 * width) + linear(4 * width, width) + norm
    return norm + layers * (attention + feed_forward) + layers // every * cross


def test_the_language_model_has_vicunas_parameters(model: CalmForConditionalGeneration) -> None:
    assert count(model.language_model) == VICUNA_7B
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert 2 * 32000 * 4096 + 32 * layer + 4096 == VICUNA_7B


def test_the_encoder_has_clips_parameters(model: CalmForConditionalGeneration) -> None:
    linear = 1024 * 1024 + 1024
    layer = 4 * linear + (1024 * 4096 + 4096) + (4096 * 1024 + 1024) + 2 * 2 * 1024
    embeddings = 1024 + 3 * 14 * 14 * 1024 + (24 * 24 + 1) * 1024
    assert count(model.vision_tower) == embeddings + 24 * layer + 2 * 2 * 1024 == 303_507_456


def test_the_mfam_has_three_q_formers_and_one_fully_connected_layer(model: CalmForConditionalGeneration) -> None:
    level = 32 * 768 + qformer_parameters() + (768 * 4096 + 4096) + (768 * 256 + 256)
    fully_connected = 1024 * 4096 + 4096
    contrast = 384 * 256 + 256 + 1
    assert count(model.mfam) == 3 * level + fully_connected + contrast


def test_shapes_are_those_of_the_paper(model: CalmForConditionalGeneration, config: CalmConfig) -> None:
    pixels = torch.empty(2, 3, 336, 336, device="meta")
    tokens = model.encode_images(pixels)
    assert tokens.low.shape == tokens.middle.shape == tokens.high.shape == (2, 576, 1024)
    visual = model.mfam(tokens)
    assert visual.shape == (2, 3 * 32 + 576, 4096)
    assert config.vision_tokens == visual.shape[1]


def test_levels_read_a_third_two_thirds_and_the_last_but_one(config: CalmConfig) -> None:
    states = config.vision_config.num_hidden_layers + 1
    last_but_one = states - 2
    assert config.levels["low"] == [8] and config.levels["middle"] == [16]
    assert [index % states for index in config.levels["high"]] == [last_but_one]


def test_the_language_model_reads_all_visual_tokens_and_the_prompt(model: CalmForConditionalGeneration) -> None:
    embeddings = torch.empty(1, 3 * 32 + 576 + 20, 4096, device="meta")
    visual = torch.empty(1, 3 * 32 + 576, 4096, device="meta")
    output = model(inputs_embeds=embeddings, visual_tokens=visual, logits_to_keep=1)
    assert output.logits.shape == (1, 1, 32000)
    assert output.score.shape == (1,)
