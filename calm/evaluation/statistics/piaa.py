"""Estimators of one person's scores from a few of their ratings. Numbers alone; the protocol is in `personalised`.

A photograph is its generic score g and the pooled features that content reads. Ratings are on calm's scale of 1 to 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

ALPHAS = np.logspace(-2, 4, 13)  # up to where the ridge adds nothing and the generic score stands
COMPONENTS = 24  # principal components of the pooled features that rater factors weigh
ITERATIONS, TOLERANCE = 200, 1e-6  # of EM: at most, and gain of log-likelihood per rating that ends it


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


@dataclass(frozen=True)
class Basis:
    """phi = [1, generic score, principal components] of a photograph, in units of the training photographs."""

    centre: float
    spread: float
    scaling: Scaling
    directions: Matrix  # (components, D)

    @classmethod
    def fit(cls, generic: Vector, pooled: NDArray[np.floating], components: int = COMPONENTS) -> Basis:
        """From training photographs (N,), (N, D); fewer components where N or D has not as many."""
        scaling = Scaling.fit(pooled)
        _, sizes, directions = np.linalg.svd(scaling(pooled), full_matrices=False)
        kept = min(components, int((sizes > 1e-6 * sizes[0]).sum()))
        to_unit = np.sqrt(len(generic)) / sizes[:kept, None]
        spread = float(generic.std())
        return cls(float(generic.mean()), spread if spread > 1e-8 else 1.0, scaling, directions[:kept] * to_unit)

    def __call__(self, generic: Vector, pooled: NDArray[np.floating]) -> Matrix:
        """(N,), (N, D) -> (N, 2 + components)."""
        first = [np.ones(len(generic)), (generic - self.centre) / self.spread]
        return np.column_stack([*first, self.scaling(pooled) @ self.directions.T])


@dataclass(frozen=True)
class RaterFactors:
    """r = phi' w + e with w ~ N(mean, covariance) over raters and e ~ N(0, noise): a rater before any rating."""

    mean: Vector
    covariance: Matrix
    noise: float

    def posterior(self, phi: Matrix, ratings: Vector) -> tuple[Vector, Matrix]:
        """Mean and covariance of a rater's weights after ratings of photographs phi (n, F)."""
        precision = np.linalg.inv(self.covariance)
        covariance = np.asarray(np.linalg.inv(precision + phi.T @ phi / self.noise), dtype=np.float64)
        return covariance @ (precision @ self.mean + phi.T @ ratings / self.noise), covariance

    def beside_generic(self, error: float) -> RaterFactors:
        """What raters give beside a model's generic scores, where these factors are of ratings beside the crowd's.

        What the generic score misses of the crowd's, `error` in mean of squares, is noise. On average raters are the
        crowd: components weigh 0, or the crowd's score would be fitted once more.
        """
        mean = np.concatenate([self.mean[:2], np.zeros(len(self.mean) - 2)])
        return RaterFactors(mean, self.covariance, self.noise + error)

    def log_likelihood(self, phi: Matrix, ratings: Vector) -> float:
        """Of one rater's ratings, the weights integrated out."""
        covariance = phi @ self.covariance @ phi.T + self.noise * np.eye(len(phi))
        left_over = ratings - phi @ self.mean
        _, log_determinant = np.linalg.slogdet(covariance)
        fit = left_over @ np.linalg.solve(covariance, left_over)
        return float(-0.5 * (fit + log_determinant + len(phi) * np.log(2 * np.pi)))


def fit_rater_factors(raters: Sequence[tuple[Matrix, Vector]]) -> RaterFactors:
    """Expectation maximisation over training raters, each (phi (n, F), ratings (n,)).

    Raises:
        ValueError: fewer than two raters.
    """
    if len(raters) < 2:
        raise ValueError(f"rater factors need the ratings of at least 2 training raters, found {len(raters)}")
    size, count = raters[0][0].shape[1], sum(len(ratings) for _, ratings in raters)
    everything = np.concatenate([ratings for _, ratings in raters])
    start = np.zeros(size)
    start[0] = everything.mean()
    found = RaterFactors(start, np.eye(size) * max(everything.var(), 1e-6), max(float(everything.var()) / 2, 1e-6))
    before = -np.inf
    for _ in range(ITERATIONS):
        likelihood = sum(found.log_likelihood(*rater) for rater in raters)
        if likelihood - before < TOLERANCE * count:
            break
        before, found = likelihood, _improved(found, raters, count)
    return found


def _improved(found: RaterFactors, raters: Sequence[tuple[Matrix, Vector]], count: int) -> RaterFactors:
    """One step of EM; a little is added to the diagonal so that no direction dies out."""
    posteriors = [found.posterior(*rater) for rater in raters]
    mean = np.mean([weights for weights, _ in posteriors], axis=0)
    spread = [cov + np.outer(weights - mean, weights - mean) for weights, cov in posteriors]
    errors = [
        ((ratings - phi @ weights) ** 2).sum() + np.einsum("nf,fg,ng->", phi, cov, phi)
        for (phi, ratings), (weights, cov) in zip(raters, posteriors, strict=True)
    ]
    covariance = np.mean(spread, axis=0) + 1e-8 * np.eye(len(mean))
    return RaterFactors(mean, covariance, max(float(sum(errors)) / count, 1e-8))
