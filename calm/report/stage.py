"""Results as one page for people: results/report.html, which opens offline, and its twin results/report.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calm.evaluation.base import Bench, load_model
from calm.evaluation.stage import settings
from calm.io import atomic_file
from calm.layout import Layout
from calm.params import Params
from calm.report.page import collect, render

if TYPE_CHECKING:
    from calm.assistant import Calm


def report(params: Params, layout: Layout, *, model: Calm | None = None) -> None:
    """Write the report of everything in results/.

    `model` speaks about the example photographs; without it, the model of the task `scoring` is loaded.

    Raises:
        FileNotFoundError: a task of params.evaluation.tasks has no result, or the model is missing.
        ReportError: an ablation and the full recipe scored different photographs.
    """
    if model is None:
        model = load_model(layout.root / settings("scoring", params).model, params)
    page = collect(Bench("report", params, layout, model, params.report))
    for template, target in (("page.html.j2", layout.report), ("page.md.j2", layout.report.with_suffix(".md"))):
        with atomic_file(target) as part:
            part.write_text(render(template, page), encoding="utf-8")
