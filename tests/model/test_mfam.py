"""Three Q-formers and a fully connected layer, each reading what it is told, in the paper's order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from calm.attributes import LEVELS
from calm.model import LEVEL_SOURCES, WHOLE_SOURCES
from calm.model.build import Assembly, assemble, calm_config
from calm.model.configuration import CalmConfig
from calm.model.mfam import LevelTokens, level_tokens
from tests import tiny


def states(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_levels_read_the_hidden_states_they_are_told() -> None:
    hidden = states((2, 4, 8, 8), (2, 6, 4, 4), (2, 10, 2, 2))
    tokens = level_tokens(hidden, {"low": [0], "middle": [1], "high": [-1]}, grid=0)
    for level, maps in zip(LEVELS, hidden, strict=True):
        assert torch.equal(tokens[level], maps.flatten(2).transpose(1, 2))


def test_a_grid_gives_means_and_deviations_of_cells() -> None:
    (maps,) = states((2, 3, 4, 4))
    tokens = level_tokens([maps], {level: [0] for level in LEVELS}, grid=2)["low"]
    assert tokens.shape == (2, 4, 6)
    cell = maps[1, :, 2:, :2].flatten(1)
    torch.testing.assert_close(tokens[1, 2, :3], cell.mean(1))
    torch.testing.assert_close(tokens[1, 2, 3:], cell.std(1, unbiased=False), rtol=1e-3, atol=1e-3)


def test_states_of_one_level_are_put_side_by_side() -> None:
    hidden = states((1, 3, 4, 4), (1, 5, 2, 2))
    tokens = level_tokens(hidden, {"low": [0, 1], "middle": [0], "high": [1]}, grid=2)
    assert tokens["low"].shape == (1, 4, 3 * 2 + 5)
    with pytest.raises(ValueError, match=r"mfam.levels.low.*set mfam.grid"):
        level_tokens(hidden, {"low": [0, 1], "middle": [0], "high": [1]}, grid=0)


@pytest.mark.parametrize("before", [0, 1, 5, 7])
def test_class_and_register_tokens_are_dropped(before: int) -> None:
    (sequence,) = states((2, before + 9, 4))
    tokens = level_tokens([sequence], {level: [0] for level in LEVELS}, grid=0, side=3)
    assert torch.equal(tokens["high"], sequence[:, before:])


def test_widths_are_known_before_any_weights(assembly: Assembly, pixels: torch.Tensor) -> None:
    tokens = assembly.model.encode_images(pixels)
    widths = assembly.model.config.level_widths
    assert {level: tokens[level].shape[-1] for level in LEVELS} == widths


def test_tokens_come_as_low_middle_high_thematic(assembly: Assembly, pixels: torch.Tensor) -> None:
    model = assembly.model
    tokens = model.encode_images(pixels)
    queries, width = model.config.queries, model.config.text_config.hidden_size
    with torch.no_grad():
        visual = model.mfam(tokens)
        seen = 3 * 2 + 1 + len(tiny.CONTENT)
        assert visual.shape == (3, model.config.vision_tokens, width) == (3, seen + model.config.told_tokens, width)
        for place, level in enumerate(LEVELS):
            own = model.mfam.language_tokens(level, model.mfam.levels[level](tokens[level]))
            assert torch.equal(visual[:, place * queries : (place + 1) * queries], own)
        assert torch.equal(visual[:, 3 * queries : seen], model.mfam.thematic_tokens(tokens))
        assert torch.equal(visual[:, seen:], model.mfam.worded(tokens))


@pytest.mark.parametrize("grid, expected", [(0, 4), (1, 1), (2, 4)])
def test_without_content_the_thematic_grid_decides_its_tokens(
    tiny_template: Any, pixels: torch.Tensor, grid: int, expected: int
) -> None:
    model = assemble(tiny_template.params(mfam__thematic={"grid": grid, "content": []})).model
    features = model.encode_images(pixels)
    tokens = model.mfam.thematic_tokens(features)
    assert tokens.shape[1] == model.config.thematic_tokens == expected
    assert features.content.shape == (3, 0)


def test_content_is_the_encoders_end_and_what_is_said_of_its_classes(tiny_template: Any, pixels: torch.Tensor) -> None:
    model = assemble(tiny_template.params(mfam__thematic={"grid": 1, "content": list(WHOLE_SOURCES)})).model
    seen = model.vision_tower(pixels, output_hidden_states=True)
    widths = model.config.content_widths
    summary, deviation, words = model.encode_images(pixels).content.split(list(widths.values()), dim=-1)
    last = seen.hidden_states[-1]
    assert torch.equal(summary, last.mean((2, 3)))
    torch.testing.assert_close(deviation, last.std((2, 3), correction=0))
    likely = (seen.logits / 2).softmax(-1)
    torch.testing.assert_close(words, likely @ model.mfam.class_words)
    torch.testing.assert_close(model.mfam.class_words.norm(dim=-1), torch.ones(len(model.mfam.class_words)))


@torch.no_grad()
def test_tokens_of_content_read_channels_in_deviations_from_the_usual(assembly: Assembly, pixels: torch.Tensor) -> None:
    mfam, tokens = assembly.model.mfam, assembly.model.encode_images(pixels)
    mfam.fit_content(tokens)
    found = mfam.thematic_tokens(tokens)[:, -len(tiny.CONTENT) :]
    sources = {
        "low_deviation": tokens.low.std(1, correction=0),
        "high_mean": tokens.high.mean(1),
        "words": tokens.content[:, -mfam.config.text_width :],
    }
    for name, values in sources.items():
        usual = (values - values.mean(0)) / values.std(0, correction=0).clamp_min(1e-6)
        token = found[:, tiny.CONTENT.index(name)]
        torch.testing.assert_close(token, mfam.content[name](usual), rtol=1e-4, atol=1e-4)


def test_sources_stand_in_the_order_of_the_parameters(tiny_template: Any, pixels: torch.Tensor) -> None:
    ways = (tiny.CONTENT, tiny.CONTENT[::-1])
    mfams = [assemble(tiny_template.params(mfam__thematic={"grid": 1, "content": way})).model for way in ways]
    one, other = (model.mfam.pooled_features(model.encode_images(pixels)) for model in mfams)
    widths = list(mfams[0].config.content_widths.values())
    assert torch.equal(torch.cat(one.split(widths, dim=1)[::-1], dim=1), other)


def test_parameters_may_name_every_source(tiny_template: Any) -> None:
    every = [*LEVEL_SOURCES, *WHOLE_SOURCES]
    config = calm_config(tiny_template.params(mfam__thematic={"grid": 1, "content": every}))
    assert config.thematic_tokens == 1 + len(every)


@pytest.mark.parametrize(
    "content, message",
    [
        (["mood"], "unknown sources .'mood'."),
        (["words"], "leave out words"),
        (True, "expected a list of sources, found True: .* earlier calm"),
    ],
)
def test_sources_that_are_not_there_are_refused(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CalmConfig(thematic_content=content)


def test_a_level_reads_its_own_features_alone(assembly: Assembly, pixels: torch.Tensor) -> None:
    model = assembly.model
    tokens = model.encode_images(pixels)
    changed = LevelTokens(tokens.low, tokens.middle.flip(0), tokens.high, tokens.content)
    with torch.no_grad():
        before, after = model.mfam(tokens), model.mfam(changed)
    same = (before == after).all(-1).all(0)
    assert same[:2].all() and same[4:6].all()  # low, high
    assert not same[2:4].any()  # middle
    thematic = same[6 : 7 + len(tiny.CONTENT)].tolist()  # places, then content
    assert thematic == [True, *(source != "middle_mean" for source in tiny.CONTENT)]


def test_pictures_are_read_one_by_one(assembly: Assembly, pixels: torch.Tensor) -> None:
    model = assembly.model
    with torch.no_grad():
        together = model.mfam(model.encode_images(pixels))
        alone = torch.cat([model.mfam(model.encode_images(one)) for one in pixels.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_attention_is_a_distribution_over_positions(assembly: Assembly, pixels: torch.Tensor) -> None:
    tokens = assembly.model.encode_images(pixels)
    for level in LEVELS:
        qformer = assembly.model.mfam.levels[level]
        before = qformer(tokens[level])
        weights = qformer.attention(tokens[level])
        assert weights.shape == (3, tokens[level].shape[1])
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(1), torch.ones(3))
        assert torch.equal(before, qformer(tokens[level]))  # looking changes nothing


def test_rows_and_concatenation_are_inverse(assembly: Assembly, pixels: torch.Tensor) -> None:
    tokens = assembly.model.encode_images(pixels)
    parts = [tokens.rows(slice(i, i + 1)) for i in range(3)]
    again = LevelTokens.concatenate(parts)
    assert all(torch.equal(tokens[level], again[level]) for level in LEVELS)


def test_similarity_is_a_cosine_over_the_temperature(assembly: Assembly) -> None:
    mfam = assembly.model.mfam
    pooled, texts = states((2, mfam.config.width), (5, mfam.config.text_width))
    found = mfam.similarity("low", pooled, texts)
    image = mfam.levels["low"].to_contrast(pooled)
    text = mfam.text_to_contrast(texts)
    expected = (
        torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1) / mfam.config.contrast_temperature
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
