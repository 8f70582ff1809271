"""The page: everything it shows, and its rendering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from calm.evaluation.base import Bench
from calm.report import plots, tables
from calm.report.examples import examples
from calm.report.parts import parts
from calm.report.settings import ReportParams


@dataclass(frozen=True)
class Figure:
    """A figure as an SVG element, themed by the page."""

    name: str
    svg: str

    @property
    def is_confusion(self) -> bool:
        """A matrix of states, of which an attribute has one each."""
        return self.name.startswith("confusion-")


def collect(bench: Bench[ReportParams]) -> dict[str, Any]:
    """What the templates are given: results as they were found, figures, and what the model says of the examples."""
    params, layout = bench.params, bench.layout
    sections = tables.sections(params, layout)
    sources = tables.sources(params, layout)
    ablations = tables.ablations(params, layout)
    drawings = [
        (section.name, name, svg, f"{section.task.title}: {name.replace('-', ' ')}")
        for section in sections
        for name, svg in plots.task_figures(layout.result(section.name) / "plots")
    ] + [("curves", name, svg, f"learning curve of {name}") for name, svg in plots.curves(layout.curves)]
    figures: dict[str, list[Figure]] = {place: [] for place in ("curves", *(section.name for section in sections))}
    for number, (place, name, svg, label) in enumerate(drawings, start=1):
        figures[place].append(Figure(name, plots.inline(svg, number, label)))
    return {
        "profile": params.profile,
        "level": f"{100 * params.evaluation.bootstrap.level:g} %",
        "synthetic": any(how.startswith("synthetic") for _, _, how in sources),
        "sources": sources,
        "leakage": tables.leakage(layout),
        "sections": sections,
        "figures": figures,
        "parts": parts(params, layout, ablations),
        "ablations": ablations,
        "starts": {name: ablation.start for name, ablation in params.ablations.items()},
        "cross_validations": tables.cross_validations(params, layout),
        "reported": tables.words("reported"),
        "examples": examples(bench),
        "provenance": tables.provenance(params, bench.model.provenance),
    }


def render(template: str, page: Mapping[str, Any]) -> str:
    """Fill one of this package's templates. Text from models and data is escaped in HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("calm.report", "."),
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = table_cell
    style = resources.files("calm.report").joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(page=page, style=Markup(style))


def table_cell(text: str) -> str:
    """Text as a cell of a Markdown table: one line, no column breaks."""
    return " ".join(text.replace("|", "\\|").split())
