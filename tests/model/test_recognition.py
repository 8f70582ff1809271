"""Similarities become probabilities that held-out photographs agree with, and words that the language model reads."""

from __future__ import annotations

import pytest
import torch

from calm.attributes.taxonomy import taxonomy
from calm.model.build import Assembly, word_ids
from calm.model.heads import Calibration, Recogniser, attribute_rows, fit, passing
from calm.model.mfam import LevelTokens
from calm.training.pretrain import log_priors, state_table

TABLE = state_table(taxonomy())
PRIORS = tuple(log_priors(taxonomy()).tolist())


def drawn(slope: float, offset: float, views: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarities, and states drawn with the probabilities that a calibration gives them."""
    generator = torch.Generator().manual_seed(3)
    similarities = 3 * torch.randn(views, len(TABLE), generator=generator)
    shares = Recogniser(tuple(TABLE), Calibration(PRIORS, slope, offset)).probabilities(similarities)
    states = torch.zeros_like(shares, dtype=torch.bool)
    for rows in attribute_rows(TABLE):
        chosen = torch.multinomial(shares[:, rows], 1, generator=generator)[:, 0]
        states[torch.arange(views), torch.tensor(rows)[chosen]] = True
    return similarities, states


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.5, -0.8), (1.4, 0.6)])
def test_slope_and_offset_are_found_again(slope: float, offset: float) -> None:
    found = fit(TABLE, PRIORS, *drawn(slope, offset))
    assert (found.slope, found.offset) == pytest.approx((slope, offset), abs=0.05)


def test_probabilities_sum_to_one_within_an_attribute_and_priors_are_those_of_views() -> None:
    recogniser = Recogniser(tuple(TABLE), Calibration(PRIORS))
    shares = recogniser.probabilities(torch.randn(5, len(TABLE)))
    even = recogniser.probabilities(torch.zeros(1, len(TABLE)))[0]
    for rows in attribute_rows(TABLE):
        torch.testing.assert_close(shares[:, rows].sum(1), torch.ones(5))
        torch.testing.assert_close(even[rows], torch.tensor(PRIORS)[rows].exp())


def test_the_likeliest_change_of_each_attribute_comes_in_order() -> None:
    recogniser = Recogniser(tuple(TABLE), Calibration(PRIORS))
    rows, values = recogniser.likeliest(torch.randn(4, len(TABLE)))
    assert rows.shape == values.shape == (4, len(taxonomy().attributes))
    assert (values.diff(dim=1) <= 0).all()
    for of_one in rows.tolist():
        assert all(TABLE[row][2] != "unchanged" for row in of_one)
        assert len({TABLE[row][1] for row in of_one}) == len(of_one)


def test_further_states_pass_only_beside_one_that_is_likely() -> None:
    probabilities = torch.tensor([[0.6, 0.2, 0.1], [0.4, 0.3, 0.2]])
    assert passing(probabilities, 0.5, 0.15).tolist() == [2, 0] and passing(probabilities, 0.3, 0.9).tolist() == [1, 1]


def test_the_surest_attribute_is_the_one_whose_soundness_a_photograph_raises_most() -> None:
    recogniser = Recogniser(tuple(TABLE), Calibration(PRIORS))
    similarities = torch.zeros(2, len(TABLE))
    sharp, level = TABLE.index(("low", "sharpness", "unchanged")), TABLE.index(("middle", "tilt", "unchanged"))
    similarities[0, sharp], similarities[1, level] = 3, 3
    found = recogniser.soundest(similarities)
    assert found.shape == (2, len(taxonomy().attributes)) and found[:, 0].tolist() == [sharp, level]
    assert all(TABLE[row][2] == "unchanged" for row in found.flatten().tolist())


def test_states_over_the_threshold_are_told_and_where_none_is_what_is_sound(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, mfam = assembly.model.config, assembly.model.mfam
    tokens = assembly.model.encode_images(torch.rand(3, 3, config.image_size, config.image_size))
    assert torch.equal(mfam.told(tokens), mfam.nothing(tokens))  # nothing was learnt yet
    width, count = config.told_length, config.told_states
    nothing = mfam.get_buffer("words")[-1].repeat(count, 1)
    assert torch.equal(mfam.worded(tokens)[1], nothing)
    told = mfam.worded(tokens, [[1], [], None])
    assert torch.equal(told[0, -width:], mfam.get_buffer("words")[1])  # right before the question
    assert torch.equal(told[1], nothing) and torch.equal(told[2], nothing)
    monkeypatch.setattr(config, "recognition", Calibration((0.0,) * len(config.attribute_states)).to_config())
    for least, changed in ((1e-6, True), (0.999999, False)):
        monkeypatch.setattr(config, "told_probability", least)
        rows = mfam.told(tokens)
        assert (rows[:, 0] < len(config.attribute_states)).all()
        states = [config.attribute_states[row][2] for row in rows[rows < len(config.attribute_states)].tolist()]
        assert all((name != "unchanged") == changed for name in states)


def test_a_photograph_and_the_mirrored_one_are_recognised_alike(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, config = assembly.model, assembly.model.config
    assert config.mirrored_rows == taxonomy().mirrored_rows(config.attribute_states)
    monkeypatch.setattr(config, "mirrored_rows", rows := [1, 0, 2])  # as if the first two were a tilt's
    monkeypatch.setattr(model.mfam, "prototypes", torch.randn_like(model.mfam.prototypes))
    photographs = torch.rand(3, 3, config.image_size, config.image_size)
    alone, other = (model.mfam.similarities(model.encode_images(one)) for one in (photographs, photographs.flip(-1)))
    both = model.mfam.similarities(model.look(photographs))
    torch.testing.assert_close(both, (alone + other[:, rows]) / 2)
    assert not torch.allclose(both, alone, atol=1e-4)
    again = model.mfam.similarities(model.look(photographs.flip(-1)))
    torch.testing.assert_close(again[:, rows], both, rtol=1e-4, atol=1e-4)
    one = model.mfam.similarities(LevelTokens.concatenate([model.look(photographs).rows(slice(1, 2))]))
    torch.testing.assert_close(one, both[1:2], rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(config, "mirrored_rows", [])  # as in checkpoints of an earlier calm
    assert model.look(photographs).mirrored is None
    torch.testing.assert_close(model.mfam.similarities(model.look(photographs)), alone)


def test_words_are_the_language_models_own_and_too_long_ones_are_told(assembly: Assembly) -> None:
    tokenizer = assembly.processor.tokenizer
    ids = word_ids(tokenizer, taxonomy(), TABLE, 40)
    assert {len(one) for one in ids} == {40} and len(ids) == len(TABLE) + 1
    row = TABLE.index(("low", "noise", "noisy"))
    assert tokenizer.decode(ids[row]).strip() == "visible noise;"
    assert tokenizer.decode(ids[TABLE.index(("low", "sharpness", "unchanged"))]).strip() == "the crisp detail;"
    assert tokenizer.decode(ids[-1]).strip() == "nothing;"
    with pytest.raises(ValueError, match=r"mfam.words.tokens: 2 are too few for 'unchanged' of 'brightness', which"):
        word_ids(tokenizer, taxonomy(), TABLE, 2)
