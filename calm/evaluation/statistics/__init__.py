"""Figures with intervals: correlations, calibration, metrics of texts, ridge regressions, decisions, plots."""
