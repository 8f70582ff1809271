"""Learning again and again: every recipe begins where it says, whatever was learnt before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from calm.experiments.cross_validation import Learner
from calm.training.settings import Recipe
from tests import tiny

READS = ["low", "middle", "high", "thematic"]
FRESH = Recipe(self_supervision="none", reads=READS, steps=0)
BEGUN = Recipe(self_supervision="full", reads=READS, steps=0)
SPEAKING = Recipe(self_supervision="none", reads=READS, steps=3)
ROWS = pd.DataFrame(
    [
        {"dataset": tiny.DATASET, "item_id": f"p{number}", "score": 1.5 + number, "origin": "human"}
        for number in range(6)
    ]
)


@pytest.fixture
def learner(trained_world: Any) -> Learner:
    return Learner(trained_world.params(finetune__scores__visual__steps=3), trained_world.layout, ROWS)


def learnt(learner: Learner, recipe: Recipe, seed: int = 1) -> np.ndarray:
    learner.learn(recipe, ROWS[:4], seed, "test")
    return learner.scores(ROWS[4:], language=recipe.steps > 0)["regression"].to_numpy()


def test_what_was_learnt_before_leaves_no_trace(learner: Learner) -> None:
    first = learnt(learner, FRESH)
    learnt(learner, SPEAKING)
    begun = learnt(learner, BEGUN)
    np.testing.assert_array_equal(learnt(learner, FRESH), first)
    assert np.abs(begun - first).max() > 1e-6
    assert np.abs(learnt(learner, FRESH, seed=2) - first).max() > 1e-6
    assert not list(learner.layout.state("x").parent.glob("test*/*"))


def test_with_the_language_model_there_are_all_readouts_and_its_own_weights_stay(learner: Learner) -> None:
    model = learner.assembly.model
    own = {n: p.clone() for n, p in model.named_parameters() if not n.startswith(("mfam.", "score_head."))}
    frozen = {name: parameter for name, parameter in own.items() if name not in learner.parameters}
    learner.learn(SPEAKING, ROWS[:4], 1, "test")
    found = learner.scores(ROWS[4:], language=True)
    assert found[["expectation", "regression"]].notna().all().all()
    assert any("lora" in name for name in learner.parameters)
    for name, before in frozen.items():
        assert torch.equal(model.get_parameter(name), before), name


def test_what_comments_say_of_held_out_photographs_is_not_learnt(learner: Learner) -> None:
    said, first = learner._said["comments"], learnt(learner, SPEAKING)
    held_out = said["item_ids"].map(lambda ids: ids[0] in set(ROWS["item_id"][4:]))
    assert held_out.any() and not held_out.all()
    for changed, same in ((held_out, True), (~held_out, False)):
        learner._said["comments"] = said.assign(answer=said["answer"].mask(changed, "A stunning photo."))
        assert np.array_equal(learnt(learner, SPEAKING), first) == same


def test_without_it_there_is_the_regression_alone(learner: Learner) -> None:
    learner.learn(FRESH, ROWS[:4], 1, "test")
    found = learner.scores(ROWS[4:], language=False)
    assert found["regression"].notna().all() and found[["text", "expectation"]].isna().all().all()


def test_what_a_recipe_does_not_read_decides_nothing(learner: Learner) -> None:
    recipe = FRESH.model_copy(update={"reads": ["high", "thematic"]})
    learnt(learner, recipe)
    mfam, tokens = learner.assembly.model.mfam, learner.features([(tiny.DATASET, "p5")])
    seen = mfam(tokens)[:, : -mfam.config.told_tokens]
    queries = mfam.config.queries
    assert not seen[:, : 2 * queries].any() and seen[:, 2 * queries :].any()
    assert seen[0, -len(tiny.CONTENT) :].any(-1).all()
    learnt(learner, FRESH)
    seen = mfam(tokens)[:, : -mfam.config.told_tokens]
    assert seen[:, : 2 * queries].any() and seen[0, -len(tiny.CONTENT) :].any(-1).all()


def test_pooled_features_are_those_that_content_reads(learner: Learner) -> None:
    features = learner.pooled_features(ROWS)
    tokens = learner.features([(tiny.DATASET, "p2")])
    levels = [tokens.low.std(1, correction=0), tokens.middle.mean(1), tokens.high.mean(1)]  # tiny.CONTENT
    expected = torch.cat([*levels, tokens.content], dim=1)[0]
    np.testing.assert_allclose(features[2], expected.numpy(), rtol=1e-6)
