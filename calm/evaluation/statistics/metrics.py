"""Quality figures with bootstrap intervals. An undefined figure is an error or null with a reason, never 0."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    """A figure of paired values, defined under integer row weights: a resample holds a row as often as its weight says.

    `weighted(predicted, target, weights)` takes weights (S, N) and returns (S,), NaN where a resample leaves the figure
    undefined.
    """

    name: str
    label: str
    weighted: Callable[[Vector, Vector, Vector], Vector]
    least: int = 1  # rows without which there is no such figure
    correlation: bool = False  # constants have none

    def point(self, predicted: ArrayLike, target: ArrayLike) -> float:
        """The figure of all rows.

        Raises:
            ValueError: not vectors of one length, or a value that is NaN or infinite (the first row is named).
            UndefinedMetric: fewer than `least` rows, or a correlation of a constant.
        """
        x, y = pair(predicted, target, self.least)
        if self.correlation:
            for name, values in (("predictions", x), ("targets", y)):
                if np.ptp(values) == 0:
                    raise UndefinedMetric(f"all {name} are equal, so a correlation is not defined")
        return float(self.weighted(x, y, np.ones((1, len(x))))[0])


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: resamples of whole groups of rows, percentiles at `level`."""

    samples: int
    level: float
    seed: int

    def weights(self, groups: Sequence[Hashable]) -> Vector:
        """Integer row weights of every resample, (samples, rows). Rows of one group come and go together.

        Groups, not rows, are drawn: ten views of one photograph are not ten independent observations.
        """
        order = {group: index for index, group in enumerate(dict.fromkeys(groups))}
        index = np.array([order[group] for group in groups], dtype=np.intp)
        rng = stream(self.seed, "bootstrap")
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


def weighted_ranks(values: Vector, weights: Vector) -> Vector:
    """Average rank of each row in the sample that repeats row i weights[s, i] times: (S, N)."""
    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(inverse.max() + 1))
    tied = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks: Vector = (np.cumsum(tied, axis=1) - tied + (tied + 1) / 2)[:, inverse]
    return ranks


def plcc(x: Vector, y: Vector, weights: Vector) -> Vector:
    """Pearson's linear correlation, -1..1 (PLCC), without any fitted mapping; x and y are (N,) or (S, N)."""
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


def srcc(x: Vector, y: Vector, weights: Vector) -> Vector:
    """Spearman's rank correlation, -1..1 (SRCC)."""
    return plcc(weighted_ranks(x, weights), weighted_ranks(y, weights), weights)


def krcc(x: Vector, y: Vector, weights: Vector) -> Vector:
    """Kendall's rank correlation tau-b, which allows for ties, -1..1 (KRCC).

    Rows that a resample repeats are tied with one another in both vectors.
    """
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


def mae(x: Vector, y: Vector, weights: Vector) -> Vector:
    """Mean absolute error in the units of the scale."""
    return weighted_mean(np.abs(x - y), weights)


def weighted_mean(values: Vector, weights: Vector) -> Vector:
    """Mean of values (N,) under each row of weights (S, N): (S,), NaN where a resample has none of the rows."""
    total = weights.sum(axis=1)
    result: Vector = np.divide(weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0)
    return result


SRCC = Metric("srcc", "SRCC", srcc, least=2, correlation=True)
PLCC = Metric("plcc", "PLCC", plcc, least=2, correlation=True)
KRCC = Metric("krcc", "KRCC", krcc, least=2, correlation=True)
MAE = Metric("mae", "MAE", mae)


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
    return mean_over_seeds(metric, [predicted], target, groups, bootstrap)


def paired_difference(
    metric: Metric,
    first: ArrayLike,
    second: ArrayLike,
    target: ArrayLike,
    groups: Sequence[Hashable],
    bootstrap: Bootstrap,
) -> Estimate:
    """`metric` of `first` minus that of `second` on the same rows, each resample shared by both (paired bootstrap)."""
    return mean_over_seeds(metric, [first], target, groups, bootstrap, minus=[second])


def mean_over_seeds(
    metric: Metric,
    predicted: Sequence[ArrayLike],
    target: ArrayLike,
    groups: Sequence[Hashable],
    bootstrap: Bootstrap,
    minus: Sequence[ArrayLike] = (),
) -> Estimate:
    """Mean of the figures of several runs on the same rows, or of their paired differences from as many others.

    Every resample of the rows is shared by all runs: the interval is over photographs, for the mean of these runs.
    """
    if len(minus) not in (0, len(predicted)):
        raise ValueError(f"{len(predicted)} runs cannot be compared with {len(minus)}")
    runs, others = ([pair(run, target, least=0)[0] for run in several] for several in (predicted, minus))
    y = np.asarray(target, np.float64)
    try:
        value = np.mean([metric.point(run, y) for run in runs])
        if others:
            value -= np.mean([metric.point(run, y) for run in others])
    except UndefinedMetric as error:
        return Estimate(None, n=len(y), reason=str(error))
    weights = bootstrap.weights(groups)
    draws = np.mean([_draws(metric, run, y, weights) for run in runs], axis=0)
    if others:
        draws = draws - np.mean([_draws(metric, run, y, weights) for run in others], axis=0)
    low, high = bootstrap.interval(draws)
    reason = "too few groups for an interval" if low is None else None
    return Estimate(float(value), low, high, len(y), reason, bootstrap.two_sided(draws) if others else None)


def mean(values: ArrayLike, groups: Sequence[Hashable], bootstrap: Bootstrap, *, difference: bool = False) -> Estimate:
    """Mean of per-row values with its interval over groups, for differences with their two-sided p.

    Null with a reason when empty.

    Raises:
        ValueError: a value that is NaN.
    """
    x, _ = pair(values, values, least=0)
    if not len(x):
        return Estimate(None, reason="no rows")
    draws = weighted_mean(x, bootstrap.weights(groups))
    p = bootstrap.two_sided(draws) if difference else None
    return Estimate(float(x.mean()), *bootstrap.interval(draws), len(x), p=p)


def ratio(part: Vector, whole: Vector, groups: Sequence[Hashable], bootstrap: Bootstrap, reason: str) -> Estimate:
    """Sum of `part` (N,) over that of `whole`, with its interval over groups; where `whole` is nothing, the reason."""
    if not whole.sum():
        return Estimate(None, reason=reason)
    weights = bootstrap.weights(groups)
    total = weights @ whole
    draws = np.divide(weights @ part, total, out=np.full(len(weights), np.nan), where=total > 0)
    return Estimate(part.sum() / whole.sum(), *bootstrap.interval(draws), int(whole.sum()))
