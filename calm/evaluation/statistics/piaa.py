"""Estimators of one person's scores from a few of their ratings. Numbers alone; the protocol is in `personalised`.

A photograph is its generic score g and the pooled features that content reads. Ratings are on calm's scale of 1 to 10.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

ALPHAS = np.logspace(-2, 4, 13)  # up to where the ridge adds nothing and the generic score stands


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
    from sklearn.linear_model import Ridge, RidgeCV

    model = RidgeCV(alphas=ALPHAS) if len(shown) > 1 else Ridge(alpha=float(ALPHAS[-1]))
    predicted: Vector = model.fit(shown, left_over).predict(asked)
    return predicted
