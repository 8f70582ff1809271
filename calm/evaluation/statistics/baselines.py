"""What has to be beaten: ridge regression on what the frozen parts say of a photograph; other photographs' answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

RIDGE = "ridge"
RIDGE_LABEL = "ridge on what the model reads, pooled"  # every source of content (`MFAM.pooled_features`)
PENALTIES = np.logspace(0, 6, 19)
FOLDS = 5


def ridge_scores(
    features: ArrayLike, scores: ArrayLike, groups: Sequence[Hashable], others: ArrayLike
) -> NDArray[np.float64]:
    """Scores (M,) of the photographs `others` (M, F) by a ridge regression of standardised features.

    Args:
        features: pooled features (N, F) of the training photographs.
        scores: theirs (N,).
        groups: photographs of one group share a fold when the penalty is chosen by cross-validation.

    Raises:
        ValueError: there are fewer than two groups to choose the penalty by.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    folds = GroupKFold(min(FOLDS, len(numbers)))
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge(solver="cholesky")),
        {"ridge__alpha": PENALTIES},
        scoring="neg_mean_squared_error",
        cv=folds,
    )
    search.fit(np.asarray(features, np.float64), scores, groups=[numbers[group] for group in groups])
    predicted: NDArray[np.float64] = search.predict(np.asarray(others, np.float64))
    return predicted


def elsewhere(groups: Sequence[Hashable], rng: np.random.Generator) -> list[int]:
    """A seeded permutation that gives each row the index of a row of another group, wherever the groups allow it.

    Raises:
        ValueError: all rows are of one group, so that there is no other photograph.
    """
    if len(set(groups)) < 2:
        raise ValueError("all photographs are of one group: comments cannot be shuffled between photographs")
    order = list(map(int, rng.permutation(len(groups))))
    place = {group: number for number, group in enumerate(dict.fromkeys(groups[index] for index in order))}
    order.sort(key=lambda index: place[groups[index]])
    largest = max(Counter(groups).values())
    shifted = [0] * len(groups)  # rows lie group by group: a shift by the largest group leaves every group
    for position, index in enumerate(order):
        shifted[index] = order[(position + largest) % len(order)]
    return shifted
