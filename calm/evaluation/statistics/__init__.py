"""Figures with intervals: correlations, calibration, baselines, estimators of personal scores, plots."""
