"""Ridge regressions: the baseline of scores, and one person's scores from a few of their ratings.

The baseline is fitted on what the frozen parts say of a photograph. A person's is fitted on what the ratings differ by
from the generic score; ratings are on calm's scale of 1 to 10, and the protocol is in the task `personalised`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from calm.evaluation.statistics.metrics import Vector

Matrix = NDArray[np.float64]

RIDGE = "ridge"
RIDGE_LABEL = "ridge on what the model reads, pooled"  # every source of content (`MFAM.pooled_features`)
PENALTIES = np.logspace(0, 6, 19)
FOLDS = 5
ALPHAS = np.logspace(-2, 4, 13)  # of a person: up to where the ridge adds nothing and the generic score stands


def ridge_scores(features: ArrayLike, scores: ArrayLike, groups: Sequence[Hashable], others: ArrayLike) -> Vector:
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
    # The same scores once for each penalty: the features' products, most of the work, are then computed once.
    seen, wanted = np.asarray(features, np.float64), np.tile(np.asarray(scores, np.float64)[:, None], len(PENALTIES))
    model = make_pipeline(StandardScaler(), Ridge(PENALTIES, solver="cholesky"))
    found = cross_val_predict(model, seen, wanted, groups=[numbers[group] for group in groups], cv=folds)
    best = int(np.square(found - wanted).mean(axis=0).argmin())
    predicted: Vector = model.fit(seen, wanted).predict(np.asarray(others, np.float64))[:, best]
    return predicted


@dataclass(frozen=True)
class Scaling:
    """Features to zero mean, unit variance and, over sqrt(D), a kernel whose diagonal is about 1."""

    mean: Vector
    spread: Vector

    @classmethod
    def fit(cls, features: NDArray[np.floating]) -> Scaling:
        """Of photographs (N, D); features that do not vary are dropped.

        Raises:
            ValueError: none varies.
        """
        values = features.astype(np.float64)
        spread = values.std(axis=0)
        spread[spread <= 1e-8] = np.inf
        if not np.isfinite(spread).any():
            raise ValueError("the model's features are the same for all photographs")
        return cls(values.mean(axis=0), spread)

    def __call__(self, features: NDArray[np.floating]) -> Matrix:
        """(N, D) to (N, D); dropped features are 0."""
        scaled: Matrix = (features - self.mean) / self.spread / np.sqrt(np.isfinite(self.spread).sum())
        return scaled


def ridge(shown: Matrix, left_over: Vector, asked: Matrix) -> Vector:
    """Ridge regression fitted on the support set; its strength by leave-one-out inside that set alone."""
    model = RidgeCV(alphas=ALPHAS) if len(shown) > 1 else Ridge(alpha=float(ALPHAS[-1]))
    predicted: Vector = model.fit(shown, left_over).predict(asked)
    return predicted
