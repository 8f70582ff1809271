"""How far scores agree with the crowd's beyond their order: along a curve, on either side of the middle, in level.

All scores are on calm's scale of 1 to 10 (`calm.instructions.rescale`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from calm.evaluation.statistics.metrics import Metric, UndefinedMetric, Vector, pair, plcc, weighted_mean

BINS = 10  # of the reliability plot: equally many photographs each
AVA_CUT = 5.0  # on a scale of 1 to 10, as the literature on AVA has it


def logistic(x: ArrayLike, high: float, low: float, middle: float, width: float) -> Vector:
    """The four-parameter logistic of the video quality experts group (VQEG, 2000), used before PLCC in the field."""
    values: Vector = low + (high - low) * special.expit((np.asarray(x, dtype=np.float64) - middle) / abs(width))
    return values


def logistic_fit(x: Vector, y: Vector) -> Vector:
    """Predicted scores mapped by the logistic that brings them nearest to the given ones in least squares.

    Started, as usual, from the targets' ends and the predictions' mean and a quarter of their deviation.

    Raises:
        UndefinedMetric: the fit does not settle.
    """
    scaled = (x - x.mean()) / x.std()
    start = (y.max(), y.min(), 0.0, 0.25)
    try:
        with warnings.catch_warnings():  # of the parameters' covariance, which nobody asks for
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            found, _ = optimize.curve_fit(logistic, scaled, y, p0=start, method="lm", maxfev=20_000)
    except RuntimeError:
        raise UndefinedMetric("the logistic does not settle on these values") from None
    return logistic(scaled, *found)


def plcc_logistic(x: Vector, y: Vector, weights: Vector) -> Vector:
    """PLCC after the curve that all rows gave: the interval is that of the correlation, not of the fit."""
    return plcc(logistic_fit(x, y), y, weights)


def accuracy(x: Vector, y: Vector, weights: Vector) -> Vector:
    """Share of rows on the right side of 0: give both minus the cut. A value at the cut counts as below it."""
    return weighted_mean(((x > 0) == (y > 0)).astype(np.float64), weights)


def cut(score_min: float, score_max: float) -> float:
    """Where 'good' begins, on 1..10: 5 for a scale that is 1..10 itself (AVA's convention), else the scale's middle."""
    return AVA_CUT if (score_min, score_max) == (1.0, 10.0) else 5.5


def bins(predicted: ArrayLike, count: int = BINS) -> NDArray[np.intp]:
    """Bin of each row by its predicted score, about equally many in each; equal scores share a bin."""
    x = np.asarray(predicted, dtype=np.float64)
    edges = np.unique(np.quantile(x, np.linspace(0, 1, count + 1)[1:-1]))
    found: NDArray[np.intp] = np.unique(np.searchsorted(edges, x, side="right"), return_inverse=True)[1]
    return found


def calibration_error(x: Vector, y: Vector, weights: Vector) -> Vector:
    """Mean over rows of |mean predicted - mean given| of the row's bin, in points: 0 means that levels are right.

    Bins stay those of all rows. Noise alone makes it positive: about the deviation of the targets over the root of a
    bin's rows.
    """
    index = bins(x)
    gaps = np.zeros((len(x), index.max() + 1))
    gaps[np.arange(len(x)), index] = x - y
    result: Vector = np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)
    return result


@dataclass(frozen=True)
class Reliability:
    """One bin of a reliability plot: means of predicted and given scores, and their number."""

    predicted: float
    given: float
    deviation: float  # of the mean of the given scores: standard error, NaN for a single row
    n: int


def reliability(predicted: ArrayLike, target: ArrayLike) -> list[Reliability]:
    """The bins in order of the predicted score."""
    x, y = pair(predicted, target, least=1)
    index = bins(x)
    rows = [(x[index == number], y[index == number]) for number in range(index.max() + 1)]
    return [
        Reliability(float(a.mean()), float(b.mean()), float(stats.sem(b)) if len(b) > 1 else float("nan"), len(a))
        for a, b in rows
    ]


def emd(shares: Sequence[float], votes: Sequence[float], low: float, high: float) -> float:
    """Earth mover's distance, in points, of predicted shares over 1..10 from votes over the equal steps of low..high.

    It is Wasserstein's distance of first order; what NIMA prints for AVA is this over 10.

    Raises:
        ValueError: there is no vote, or a share is negative or not finite (scipy's message).
    """
    if len(votes) < 2:
        raise ValueError(f"a histogram of votes needs at least 2 steps, got {len(votes)}")
    positions = np.linspace(low, high, len(votes))
    steps = np.linspace(1.0, 10.0, len(shares))
    return float(stats.wasserstein_distance(steps, positions, list(shares), list(votes)))


PLCC_LOGISTIC = Metric(
    "plcc_logistic",
    "PLCC after a logistic",
    plcc_logistic,
    least=5,  # a row more than the curve has parameters
    correlation=True,
)
ACCURACY = Metric("accuracy", "accuracy at the middle", accuracy)
CALIBRATION = Metric("calibration_error", "calibration error", calibration_error)
