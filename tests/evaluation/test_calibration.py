"""Figures of agreement beyond order, against second ways of computing them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from calm.evaluation.statistics import calibration
from calm.evaluation.statistics.calibration import ACCURACY, CALIBRATION, PLCC_LOGISTIC
from calm.evaluation.statistics.metrics import Bootstrap

RNG = np.random.default_rng(7)
X = RNG.normal(5, 1.2, size=90).round(1)  # rounding makes ties
Y = 1 + 9 / (1 + np.exp(-(X - 5))) + RNG.normal(0, 0.5, size=90)
WEIGHTS = Bootstrap(25, 0.95, 3).weights([i // 3 for i in range(90)])


def test_plcc_after_the_logistic_is_that_of_another_optimiser() -> None:
    def loss(b: np.ndarray) -> float:
        mapped = (b[0] - b[1]) / (1 + np.exp(-(X - b[2]) / abs(b[3]))) + b[1]  # as the VQEG report writes it
        return float(((mapped - Y) ** 2).sum())

    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 20_000, "maxfev": 20_000}
    best = optimize.minimize(loss, [Y.max(), Y.min(), X.mean(), X.std() / 4], method="Nelder-Mead", options=options).x
    mapped = (best[0] - best[1]) / (1 + np.exp(-(X - best[2]) / abs(best[3]))) + best[1]
    found = PLCC_LOGISTIC.point(X, Y)
    assert found == pytest.approx(stats.pearsonr(mapped, Y).statistic, abs=1e-6)
    assert found > stats.pearsonr(X, Y).statistic


def test_the_logistic_keeps_or_turns_the_order() -> None:
    for sign in (1, -1):
        mapped = calibration.logistic_fit(sign * X, Y)
        assert abs(stats.spearmanr(mapped, sign * X).statistic) == pytest.approx(1, abs=1e-3)
        assert stats.pearsonr(mapped, Y).statistic > 0.9


def test_the_logistic_does_not_hang_on_the_scale_of_the_predictions() -> None:
    assert PLCC_LOGISTIC.point(1000 + 1e-3 * X, Y) == pytest.approx(PLCC_LOGISTIC.point(X, Y), abs=1e-6)


def test_weights_mean_repeated_rows() -> None:
    right = (X > 5) == (Y > 5)
    repeated = [np.repeat(right, w.astype(int)).mean() for w in WEIGHTS]
    np.testing.assert_allclose(ACCURACY.weighted(X - 5, Y - 5, WEIGHTS), repeated)
    edges = np.quantile(X, np.arange(1, 10) / 10)
    for weights, found in zip(WEIGHTS, CALIBRATION.weighted(X, Y, WEIGHTS), strict=True):
        rows = np.repeat(np.arange(90), weights.astype(int))
        bins = np.digitize(X[rows], edges)
        gaps = [abs((X[rows] - Y[rows])[bins == b].sum()) for b in range(10)]
        assert found == pytest.approx(sum(gaps) / len(rows))


def test_accuracy_counts_sides_and_the_cut_itself_is_below() -> None:
    assert ACCURACY.point([0.1, -1, 0.0, 2], [3, -2, -1, -0.5]) == 0.75
    assert ACCURACY.point([0.0], [0.0]) == 1 and ACCURACY.point([0.0], [0.1]) == 0


def test_the_cut_is_five_for_avas_scale_and_the_middle_for_others() -> None:
    assert calibration.cut(1, 10) == 5
    assert calibration.cut(1, 7) == calibration.cut(0, 100) == 5.5


def test_calibration_error_is_zero_for_right_levels_and_the_shift_for_shifted_ones() -> None:
    assert CALIBRATION.point(Y, Y) == pytest.approx(0)
    assert CALIBRATION.point(Y + 0.7, Y) == pytest.approx(0.7)
    assert CALIBRATION.point([5.0] * 4, [1, 2, 3, 10]) == pytest.approx(1)
    assert CALIBRATION.point([3.0], [5.0]) == 2


def test_reliability_bins_hold_every_row_once_and_equal_scores_together() -> None:
    rows = calibration.reliability(X, Y)
    assert sum(row.n for row in rows) == 90 and len(rows) == 10
    assert sum(row.n * row.given for row in rows) == pytest.approx(Y.sum())
    assert [row.predicted for row in rows] == sorted(row.predicted for row in rows)
    index = calibration.bins(X)
    assert all(len(set(index[value == X])) == 1 for value in X)
    (only,) = calibration.reliability([4.0], [5.0])
    assert only.n == 1 and np.isnan(only.deviation)


def test_emd_is_wassersteins_distance_and_a_tenth_of_it_is_nimas_form() -> None:
    shares, votes = RNG.dirichlet(np.ones(10)), RNG.integers(0, 30, size=10)
    found = calibration.emd(shares, votes, 1, 10)
    nima = np.abs(np.cumsum(shares) - np.cumsum(votes / votes.sum())).mean()
    assert found / 10 == pytest.approx(nima)
    assert calibration.emd([1] + [0] * 9, [0, 0, 0, 0, 0, 0, 5], 1, 10) == 9  # seven steps over the same scale
    assert calibration.emd(votes, votes, 1, 10) == 0


def test_impossible_histograms_are_errors() -> None:
    for shares, votes in (([0.1] * 10, [0] * 10), ([-1] * 10, [1] * 10), ([np.nan] * 10, [1] * 10), ([0.1] * 10, [3])):
        with pytest.raises(ValueError):
            calibration.emd(shares, votes, 1, 10)
