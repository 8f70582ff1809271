"""One table that says whether each part of the method earns its place, from whatever was measured, good or bad."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from calm.evaluation.statistics.metrics import Estimate
from calm.evaluation.tasks.personalised import METHODS, PERSONAL
from calm.evaluation.tasks.scoring import COMPARED
from calm.layout import Layout
from calm.params import Params
from calm.report.tables import Comparison, at, number, read_cross_validation, read_metrics, signed, verdict


def parts(params: Params, layout: Layout, ablations: Mapping[str, Sequence[Comparison]]) -> list[Comparison]:
    """Rows of every ablation, readout and personal method that results/ has."""
    rows = [row for rows in ablations.values() for row in rows if row.figure.startswith("SRCC")]
    for name in params.cross_validations:
        rows += _cross_validated(name, read_cross_validation(layout, name))
    if "scoring" in params.evaluation.tasks:
        rows += _readouts(read_metrics(layout, "scoring"))
    if "personalised" in params.evaluation.tasks:
        rows += _personal(read_metrics(layout, "personalised"))
    return rows


def _cross_validated(name: str, metrics: Mapping[str, Any]) -> Iterator[Comparison]:
    figure = f"SRCC of the regression, cross-validation by {metrics['by']}, {len(metrics['seeds'])} seeds"
    first, *others = metrics["order"]
    ours = number(at(metrics, f"recipes.{first}.regression.srcc.value"))
    for other in others:
        theirs = number(at(metrics, f"recipes.{other}.regression.srcc.value"))
        gap = at(metrics, f"compared.{first}_minus_{other}")
        yield Comparison(f"{name}: {first} instead of {other}".replace("_", " "), figure, ours, theirs, *_said(gap))


def _readouts(metrics: Mapping[str, Any]) -> Iterator[Comparison]:
    for first, second in COMPARED:
        gap = at(metrics, f"compared.{first}_minus_{second}.srcc")
        ours, theirs = (number(at(metrics, f"{name}.srcc.value")) for name in (first, second))
        yield Comparison(f"readout: {first} instead of {second}", "SRCC", ours, theirs, *_said(gap))


def _personal(metrics: Mapping[str, Any]) -> Iterator[Comparison]:
    shots = [key.removeprefix("at_") for key in metrics if key.startswith("at_")]
    for count in sorted(shots, key=int):
        for method in PERSONAL:
            figure = at(metrics, f"at_{count}.{method}.srcc")
            if not figure or figure["value"] is None:
                continue
            for base in ("generic", "ridge"):
                if base != method:
                    gap = at(metrics, f"at_{count}.gain.{method}.over_{base}")
                    beside = number(at(metrics, f"at_{count}.{base}.srcc.value"))
                    label = f"personal: {METHODS[method]} instead of {METHODS[base]}"
                    where = f"SRCC per rater, {count} shown"
                    yield Comparison(label, where, number(figure["value"]), beside, *_said(gap))


def _said(figure: Mapping[str, Any]) -> tuple[str, str]:
    """A difference with its interval, and what that allows to say."""
    gap = Estimate(**figure) if figure else Estimate(None)
    return signed(gap), verdict(gap, higher_is_better=True)
