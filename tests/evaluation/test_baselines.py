"""The ridge regression beside every score."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from calm.evaluation.statistics.ridge import ridge_scores


def drawn(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    features = rng.normal(size=(count, 40))
    return features, 2 * features[:, 0] - features[:, 1] + rng.normal(scale=0.5, size=count) + 5


def test_what_depends_on_the_features_is_found() -> None:
    features, scores = drawn(260, np.random.default_rng(0))
    predicted = ridge_scores(features[:200], scores[:200], range(200), features[200:])
    assert spearmanr(predicted, scores[200:])[0] > 0.9


def test_the_penalty_is_chosen_between_groups_and_not_within_them() -> None:
    """Copies of a photograph would speak for no penalty at all; what is learnt of noise must be next to nothing."""
    rng = np.random.default_rng(1)
    features = np.repeat(rng.normal(size=(30, 40)), 8, axis=0)
    scores = np.repeat(rng.normal(size=30), 8)
    others = rng.normal(size=(50, 40))
    between = ridge_scores(features, scores, np.repeat(range(30), 8).tolist(), others)
    within = ridge_scores(features, scores, range(240), others)
    assert between.std() < 0.2 * within.std()


def test_one_group_is_too_few() -> None:
    with pytest.raises(ValueError, match="n_splits=1"):
        ridge_scores(np.eye(3), [1, 2, 3], [0, 0, 0], np.eye(3))
