"""The page: everything it shows, and its rendering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from calm.evaluation.stage import Bench
from calm.layout import Layout
from calm.report import plots, tables
from calm.report.examples import Example, examples
from calm.report.parts import Part, parts
from calm.report.settings import ReportParams
from calm.report.tables import Comparison, CrossValidated, Section


@dataclass(frozen=True)
class Figure:
    """A figure as an SVG element, themed by the page."""

    name: str
    svg: str


@dataclass(frozen=True)
class Page:
    """What the templates are given."""

    profile: str
    level: str
    synthetic: bool
    sources: Sequence[tuple[str, str, str]]
    leakage: str
    sections: Sequence[Section]
    figures: dict[str, list[Figure]]
    confusions: dict[str, list[Figure]]
    curves: Sequence[Figure]
    parts: Sequence[Part]
    ablations: dict[str, list[Comparison]]
    starts: dict[str, str]
    cross_validations: dict[str, CrossValidated]
    reported: dict[str, Any]
    examples: Sequence[Example]
    provenance: Sequence[tuple[str, str]]


def collect(bench: Bench[ReportParams]) -> Page:
    """Read results, draw what is missing, ask the model about the examples."""
    params, layout = bench.params, bench.layout
    found = tables.sections(params, layout)
    drawn = _Drawer()
    figures = {section.name: drawn.of_task(layout, section) for section in found}
    sources = tables.sources(params, layout)
    ablations = tables.ablations(params, layout)
    return Page(
        profile=params.profile,
        level=f"{100 * params.evaluation.bootstrap.level:g} %",
        synthetic=any(how.startswith("synthetic") for _, _, how in sources),
        sources=sources,
        leakage=tables.leakage(layout),
        sections=found,
        figures={name: [f for f in all_ if not f.name.startswith("confusion-")] for name, all_ in figures.items()},
        confusions={name: [f for f in all_ if f.name.startswith("confusion-")] for name, all_ in figures.items()},
        curves=[drawn(name, svg, f"learning curve of {name}") for name, svg in plots.curves(layout.curves)],
        parts=parts(params, layout, ablations),
        ablations=ablations,
        starts={name: ablation.start for name, ablation in params.ablations.items()},
        cross_validations=tables.cross_validations(params, layout),
        reported=tables.reported(),
        examples=examples(bench),
        provenance=tables.provenance(params, bench.model.provenance),
    )


class _Drawer:
    """Numbers the figures of one page, so that their ids differ."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, name: str, svg: bytes, label: str) -> Figure:
        self.count += 1
        return Figure(name, plots.inline(svg, self.count, label))

    def of_task(self, layout: Layout, section: Section) -> list[Figure]:
        """Every figure in a task's plots folder."""
        drawn = plots.task_figures(layout.result(section.name) / "plots")
        return [self(name, svg, f"{section.task.title}: {name.replace('-', ' ')}") for name, svg in drawn]


def render(template: str, page: Page) -> str:
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
