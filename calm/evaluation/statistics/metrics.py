"""Quality figures with bootstrap intervals. An undefined figure is an error or null with a reason, never 0."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from calm.seeds import stream

Vector = NDArray[np.float64]
DIGITS = 6  # of a stored figure: far below any interval, above the noise of summing floats in another order
CELLS = 4_000_000  # weights held at once while bootstrapping: 32 MB for each of the few arrays involved


class UndefinedMetric(ValueError):
    """The figure does not exist for these values; the message is the reason that is stored beside null."""


@dataclass(frozen=True)
class Estimate:
    """A figure over `n` rows with its percentile interval; `value` None comes with the reason.

    `p` is set for differences alone: the two-sided bootstrap probability of a difference of the other sign.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None
    p: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The figure as metrics.json stores it: rounded, and only with the keys that say something."""
        keys: dict[str, Any] = {"value": _rounded(self.value), "n": self.n}
        if self.low is not None:
            keys |= {"low": _rounded(self.low), "high": _rounded(self.high)}
        if self.p is not None:
            keys["p"] = _rounded(self.p)
        if self.reason is not None:
            keys["reason"] = self.reason
        return keys


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), DIGITS)


@dataclass(frozen=True)
class Metric:
    """A figure of paired values and the same figure under integer row weights (a resample), batched.

    `point(predicted, target)` returns a float; `weighted(predicted, target, weights)` takes weights (S, N) and returns
    (S,), NaN where a resample leaves the figure undefined.
    """

    name: str
    point: Callable[[Vector, Vector], float]
    weighted: Callable[[Vector, Vector, Vector], Vector]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: resamples of whole groups of rows, percentiles at `level`."""

    samples: int
    level: float
    seed: int

    def weights(self, groups: Sequence[Hashable], *names: str) -> Vector:
        """Integer row weights of every resample, (samples, rows). Rows of one group come and go together.

        Groups, not rows, are drawn: ten views of one photograph are not ten independent observations.
        """
        order = {group: index for index, group in enumerate(dict.fromkeys(groups))}
        index = np.array([order[group] for group in groups], dtype=np.intp)
        rng = stream(self.seed, "bootstrap", *names)
        counts = rng.multinomial(len(order), np.full(len(order), 1 / len(order)), size=self.samples)
        weights: Vector = counts.astype(np.float64)[:, index]
        return weights

    def interval(self, draws: Vector) -> tuple[float | None, float | None]:
        """Percentile interval of the defined draws; none where most resamples leave the figure undefined."""
        defined = draws[np.isfinite(draws)]
        if 2 * defined.size <= draws.size:
            return None, None
        tail = (1 - self.level) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
        return float(low), float(high)

    @staticmethod
    def two_sided(draws: Vector) -> float | None:
        """How often resampled differences have the less frequent sign, doubled; never 0, as no test by resampling is.

        With B defined draws: min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (B + 1)); None where most are undefined.
        """
        defined = draws[np.isfinite(draws)]
        if 2 * defined.size <= draws.size:
            return None
        fewer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
        return min(1.0, 2 * (1 + fewer) / (defined.size + 1))


def pair(predicted: ArrayLike, target: ArrayLike, least: int) -> tuple[Vector, Vector]:
    """Two finite vectors of one length.

    Raises:
        ValueError: not vectors of one length, or a value that is NaN or infinite (the first row is named).
        UndefinedMetric: fewer than `least` rows.
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"expected two vectors of one length, got shapes {x.shape} and {y.shape}")
    for name, values in (("predicted", x), ("target", y)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} value in row {int(np.argmin(np.isfinite(values)))} is not finite")
    if len(x) < least:
        raise UndefinedMetric(f"needs at least {least} rows, got {len(x)}")
    return x, y


def varied(x: Vector, y: Vector) -> None:
    """Refuse constants: raises UndefinedMetric."""
    for name, values in (("predictions", x), ("targets", y)):
        if np.ptp(values) == 0:
            raise UndefinedMetric(f"all {name} are equal, so a correlation is not defined")


def srcc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Spearman's rank correlation, -1..1 (SRCC). Raises as `pair`, and UndefinedMetric on constants."""
    x, y = pair(predicted, target, least=2)
    varied(x, y)
    return float(stats.spearmanr(x, y).statistic)


def plcc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Pearson's linear correlation, -1..1 (PLCC), without any fitted mapping. Raises as `srcc`."""
    x, y = pair(predicted, target, least=2)
    varied(x, y)
    return float(stats.pearsonr(x, y).statistic)


def krcc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Kendall's rank correlation tau-b, which allows for ties, -1..1 (KRCC). Raises as `srcc`."""
    x, y = pair(predicted, target, least=2)
    varied(x, y)
    return float(stats.kendalltau(x, y).statistic)


def mae(predicted: ArrayLike, target: ArrayLike) -> float:
    """Mean absolute error in the units of the scale. Raises as `pair`."""
    x, y = pair(predicted, target, least=1)
    return float(np.abs(x - y).mean())


def weighted_ranks(values: Vector, weights: Vector) -> Vector:
    """Average rank of each row in the sample that repeats row i weights[s, i] times: (S, N)."""
    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(inverse.max() + 1))
    tied = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks: Vector = (np.cumsum(tied, axis=1) - tied + (tied + 1) / 2)[:, inverse]
    return ranks


def weighted_pearson(x: Vector, y: Vector, weights: Vector) -> Vector:
    """Pearson's correlation under each row of weights; x and y are (N,) or (S, N). NaN where constant."""
    total = weights.sum(axis=1, keepdims=True)
    dx = x - (weights * x).sum(axis=1, keepdims=True) / total
    dy = y - (weights * y).sum(axis=1, keepdims=True) / total
    covariance = (weights * dx * dy).sum(axis=1)
    spread = (weights * dx * dx).sum(axis=1) * (weights * dy * dy).sum(axis=1)
    scale = max(np.ptp(x), 1e-300) * max(np.ptp(y), 1e-300) * total[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        # A constant resample leaves only rounding in `spread`: relative to the values' range it is nothing.
        result: Vector = np.where(spread > (1e-9 * scale) ** 2, covariance / np.sqrt(spread), np.nan)
    return result


def _weighted_srcc(x: Vector, y: Vector, weights: Vector) -> Vector:
    return weighted_pearson(weighted_ranks(x, weights), weighted_ranks(y, weights), weights)


def _weighted_krcc(x: Vector, y: Vector, weights: Vector) -> Vector:
    """Tau-b of each resample. Rows that a resample repeats are tied with one another in both vectors."""
    concordance = np.zeros(len(weights))
    for start in range(0, len(x), step := max(1, CELLS // len(x))):
        block = slice(start, start + step)
        signs = np.sign(x[block, None] - x) * np.sign(y[block, None] - y)
        concordance += ((weights @ signs.T) * weights[:, block]).sum(axis=1)
    total = weights.sum(axis=1)
    pairs = [total * (total - 1) - _tied_pairs(values, weights) for values in (x, y)]
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Vector = np.where((pairs[0] > 0) & (pairs[1] > 0), concordance / np.sqrt(pairs[0] * pairs[1]), np.nan)
    return result


def _tied_pairs(values: Vector, weights: Vector) -> Vector:
    """Ordered pairs of rows of each resample that have equal values: (S,)."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    pairs: Vector = (counts * (counts - 1)).sum(axis=1)
    return pairs


def _weighted_mae(x: Vector, y: Vector, weights: Vector) -> Vector:
    return weighted_mean(np.abs(x - y), weights)


def weighted_mean(values: Vector, weights: Vector) -> Vector:
    """Mean of values (N,) under each row of weights (S, N): (S,), NaN where a resample has none of the rows."""
    total = weights.sum(axis=1)
    result: Vector = np.divide(weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0)
    return result


SRCC = Metric("srcc", srcc, _weighted_srcc)
PLCC = Metric("plcc", plcc, weighted_pearson)
KRCC = Metric("krcc", krcc, _weighted_krcc)
MAE = Metric("mae", mae, _weighted_mae)


def _draws(metric: Metric, predicted: Vector, target: Vector, weights: Vector) -> Vector:
    """The figure of every resample, a few resamples at a time so that memory stays bounded: (S,)."""
    step = max(1, CELLS // max(1, weights.shape[1]))
    parts = [metric.weighted(predicted, target, weights[i : i + step]) for i in range(0, len(weights), step)]
    return np.concatenate(parts)


def estimate(
    metric: Metric, predicted: ArrayLike, target: ArrayLike, groups: Sequence[Hashable], bootstrap: Bootstrap
) -> Estimate:
    """A figure with its interval over groups; where it is undefined, null with the reason.

    Raises:
        ValueError: values that are NaN, or vectors of different length.
    """
    x, y = pair(predicted, target, least=0)
    try:
        value = metric.point(x, y)
    except UndefinedMetric as error:
        return Estimate(None, n=len(x), reason=str(error))
    low, high = bootstrap.interval(_draws(metric, x, y, bootstrap.weights(groups)))
    return Estimate(value, low, high, len(x), None if low is not None else "too few groups for an interval")


def paired_difference(
    metric: Metric,
    first: ArrayLike,
    second: ArrayLike,
    target: ArrayLike,
    groups: Sequence[Hashable],
    bootstrap: Bootstrap,
) -> Estimate:
    """`metric` of `first` minus that of `second` on the same rows, each resample shared by both (paired bootstrap)."""
    a, y = pair(first, target, least=0)
    b, _ = pair(second, target, least=0)
    try:
        value = metric.point(a, y) - metric.point(b, y)
    except UndefinedMetric as error:
        return Estimate(None, n=len(y), reason=str(error))
    weights = bootstrap.weights(groups)
    draws = _draws(metric, a, y, weights) - _draws(metric, b, y, weights)
    return Estimate(value, *bootstrap.interval(draws), len(y), p=bootstrap.two_sided(draws))


def mean_over_seeds(
    metric: Metric,
    predicted: Sequence[ArrayLike],
    target: ArrayLike,
    groups: Sequence[Hashable],
    bootstrap: Bootstrap,
    minus: Sequence[ArrayLike] | None = None,
) -> Estimate:
    """Mean of the figures of several runs on the same rows, or of their paired differences from as many others.

    Every resample of the rows is shared by all runs: the interval is over photographs, for the mean of these runs.
    """
    runs = [pair(run, target, least=0)[0] for run in predicted]
    others = [pair(run, target, least=0)[0] for run in minus or ()]
    if minus is not None and len(others) != len(runs):
        raise ValueError(f"{len(runs)} runs cannot be compared with {len(others)}")
    y = np.asarray(target, np.float64)
    try:
        value = np.mean([metric.point(run, y) for run in runs])
        if others:
            value -= np.mean([metric.point(run, y) for run in others])
    except UndefinedMetric as error:
        return Estimate(None, n=len(y), reason=str(error))
    weights = bootstrap.weights(groups)
    draws = np.mean([_draws(metric, run, y, weights) for run in runs], axis=0)
    if not others:
        return Estimate(float(value), *bootstrap.interval(draws), len(y))
    draws = draws - np.mean([_draws(metric, run, y, weights) for run in others], axis=0)
    return Estimate(float(value), *bootstrap.interval(draws), len(y), p=bootstrap.two_sided(draws))


def mean(values: ArrayLike, groups: Sequence[Hashable], bootstrap: Bootstrap) -> Estimate:
    """Mean of per-row values with its interval over groups. Raises ValueError on NaN; null with a reason when empty."""
    x, _ = pair(values, values, least=0)
    if not len(x):
        return Estimate(None, reason="no rows")
    low, high = bootstrap.interval(weighted_mean(x, bootstrap.weights(groups)))
    return Estimate(float(x.mean()), low, high, len(x))


def mean_difference(values: ArrayLike, groups: Sequence[Hashable], bootstrap: Bootstrap) -> Estimate:
    """As `mean` for paired differences of rows, with the two-sided p of a difference."""
    x, _ = pair(values, values, least=0)
    found = mean(x, groups, bootstrap)
    if found.value is None:
        return found
    return replace(found, p=bootstrap.two_sided(weighted_mean(x, bootstrap.weights(groups))))
