from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from calm.evaluation.statistics import metrics
from calm.evaluation.statistics.calibration import ACCURACY, CALIBRATION, PLCC_LOGISTIC
from calm.evaluation.statistics.metrics import KRCC, MAE, PLCC, SRCC, Bootstrap, UndefinedMetric

RNG = np.random.default_rng(3)
X = RNG.normal(size=40).round(1)  # rounding makes ties
Y = (X + RNG.normal(size=40)).round(1)
GROUPS = [i // 4 for i in range(40)]
BOOTSTRAP = Bootstrap(samples=300, level=0.95, seed=1)


def test_figures_are_scipys() -> None:
    assert SRCC.point(X, Y) == pytest.approx(stats.spearmanr(X, Y).statistic)
    assert KRCC.point(X, Y) == pytest.approx(stats.kendalltau(X, Y).statistic)
    assert PLCC.point(X, Y) == pytest.approx(stats.pearsonr(X, Y).statistic)
    assert MAE.point([1.0, 2.0], [2.0, 4.0]) == 1.5


@pytest.mark.parametrize(
    ("metric", "scipys"),
    [(SRCC, stats.spearmanr), (PLCC, stats.pearsonr), (KRCC, stats.kendalltau)],
)
def test_weights_mean_repeated_rows(metric: metrics.Metric, scipys: Callable[..., Any]) -> None:
    weights = BOOTSTRAP.weights(GROUPS)[:20]
    expected = [scipys(*(np.repeat(values, w.astype(int)) for values in (X, Y))).statistic for w in weights]
    np.testing.assert_allclose(metric.weighted(X, Y, weights), expected, rtol=1e-9)


def test_weights_of_an_error_mean_repeated_rows() -> None:
    weights = BOOTSTRAP.weights(GROUPS)[:20]
    expected = [np.repeat(np.abs(X - Y), w.astype(int)).mean() for w in weights]
    np.testing.assert_allclose(MAE.weighted(X, Y, weights), expected, rtol=1e-9)


def test_a_ratio_is_of_sums_and_null_with_the_reason_where_there_is_nothing() -> None:
    part, whole = np.array([1.0, 0, 2, 0]), np.array([2.0, 0, 2, 1])
    found = metrics.ratio(part, whole, [0, 1, 2, 3], BOOTSTRAP, "nothing there")
    assert found.value == 3 / 5 and found.n == 5 and found.low is not None and found.low < 3 / 5
    nothing = metrics.ratio(part, 0 * whole, [0, 1, 2, 3], BOOTSTRAP, "nothing there").to_json()
    assert nothing == {"value": None, "n": 0, "reason": "nothing there"}


def test_whole_groups_are_resampled() -> None:
    weights = BOOTSTRAP.weights(GROUPS)
    assert weights.shape == (300, 40)
    assert (weights.sum(axis=1) == 40).all()
    assert (weights.reshape(300, 10, 4) == weights[:, ::4, None]).all()
    assert (weights == BOOTSTRAP.weights(GROUPS)).all()
    assert (weights != Bootstrap(300, 0.95, 2).weights(GROUPS)).any()


def test_an_interval_covers_the_true_correlation_about_as_often_as_it_says() -> None:
    rng, inside = np.random.default_rng(0), 0
    for trial in range(100):
        x = rng.normal(size=120)
        y = 0.6 * x + 0.8 * rng.normal(size=120)
        found = metrics.estimate(PLCC, x, y, range(120), Bootstrap(200, 0.9, trial))
        assert found.low is not None and found.high is not None
        inside += found.low <= 0.6 <= found.high
    assert 80 <= inside <= 98


def test_groups_widen_an_interval_of_repeated_rows() -> None:
    x, y = np.repeat(X, 5), np.repeat(Y, 5)
    grouped = metrics.estimate(SRCC, x, y, np.repeat(range(40), 5).tolist(), BOOTSTRAP)
    naive = metrics.estimate(SRCC, x, y, range(200), BOOTSTRAP)
    assert grouped.high - grouped.low > 1.5 * (naive.high - naive.low)  # type: ignore[operator]


@pytest.mark.parametrize("metric", [SRCC, PLCC, KRCC, MAE, PLCC_LOGISTIC, ACCURACY, CALIBRATION])
def test_nan_and_unequal_lengths_are_errors(metric: metrics.Metric) -> None:
    with pytest.raises(ValueError, match="row 1 is not finite"):
        metric.point([1.0, float("nan"), 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="one length"):
        metric.point([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="not finite"):
        metrics.estimate(SRCC, [1.0, float("inf")], [1.0, 2.0], [0, 1], BOOTSTRAP)


@pytest.mark.parametrize(("metric", "least"), [(SRCC, 2), (PLCC, 2), (KRCC, 2), (PLCC_LOGISTIC, 5)])
def test_few_rows_and_constants_have_no_correlation(metric: metrics.Metric, least: int) -> None:
    with pytest.raises(UndefinedMetric, match=f"at least {least}"):
        metric.point(np.arange(least - 1.0), np.arange(least - 1.0))
    with pytest.raises(UndefinedMetric, match="all predictions are equal"):
        metric.point([0.1] * 6, np.arange(6.0))
    with pytest.raises(UndefinedMetric, match="all targets are equal"):
        metric.point(np.arange(6.0), [0.1] * 6)


def test_an_undefined_figure_is_null_with_its_reason_and_never_zero() -> None:
    stored = metrics.estimate(SRCC, [1.0, 1.0], [1.0, 2.0], [0, 1], BOOTSTRAP).to_json()
    assert stored == {"value": None, "n": 2, "reason": "all predictions are equal, so a correlation is not defined"}
    assert metrics.mean([], [], BOOTSTRAP).to_json() == {"value": None, "n": 0, "reason": "no rows"}


def test_constant_resamples_do_not_count_as_correlations() -> None:
    weights = np.array([[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    for values in ([0.1, 0.2, 0.4], [1e6 + 0.1, 1e6 + 0.2, 1e6 + 0.4]):
        found = PLCC.weighted(np.array(values), np.array([1.0, 2.0, 3.0]), weights)
        assert np.isnan(found[0]) and found[1] > 0.9


def test_a_paired_difference_is_tighter_than_two_intervals() -> None:
    first, second = Y + 0.1 * X, Y
    found = metrics.paired_difference(SRCC, first, second, X, GROUPS, BOOTSTRAP)
    alone = metrics.estimate(SRCC, first, X, GROUPS, BOOTSTRAP)
    assert found.value == pytest.approx(SRCC.point(first, X) - SRCC.point(second, X))
    assert found.low is not None and found.high is not None and alone.low is not None and alone.high is not None
    assert found.high - found.low < alone.high - alone.low
    assert metrics.paired_difference(SRCC, Y, Y, X, GROUPS, BOOTSTRAP).value == 0


def test_p_of_a_difference_is_small_where_there_is_one_and_never_zero() -> None:
    noise = np.random.default_rng(5).normal(size=40)
    clear = metrics.paired_difference(SRCC, X, noise, X + 0.01 * Y, GROUPS, BOOTSTRAP)
    assert clear.p == pytest.approx(2 / 301) and clear.to_json()["p"] > 0
    assert metrics.paired_difference(SRCC, X, X, Y, GROUPS, BOOTSTRAP).p == 1
    assert metrics.paired_difference(SRCC, [1.0] * 40, X, Y, GROUPS, BOOTSTRAP).p is None
    draws = np.array([-1.0, 1, 2, 3, np.nan])
    assert Bootstrap.two_sided(draws) == pytest.approx(2 * (1 + 1) / 5)
    assert metrics.mean([0.5, 0.4, 0.6] * 5, range(15), BOOTSTRAP, difference=True).p == pytest.approx(2 / 301)


def test_p_of_no_difference_is_as_often_small_as_it_says() -> None:
    rng, small = np.random.default_rng(1), 0
    for trial in range(100):
        y = rng.normal(size=80)
        a, b = (y + rng.normal(size=80) for _ in range(2))
        found = metrics.paired_difference(PLCC, a, b, y, range(80), Bootstrap(200, 0.95, trial)).p
        assert found is not None
        small += found < 0.1
    assert 2 <= small <= 20


def test_memory_bound_does_not_change_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metrics.estimate(SRCC, X, Y, GROUPS, BOOTSTRAP)
    kendall = metrics.estimate(KRCC, X, Y, GROUPS, BOOTSTRAP)
    monkeypatch.setattr(metrics, "CELLS", 100)
    assert metrics.estimate(SRCC, X, Y, GROUPS, BOOTSTRAP) == whole
    assert metrics.estimate(KRCC, X, Y, GROUPS, BOOTSTRAP) == kendall
