"""Results as one page for people: results/report.html, which opens offline, and its twin results/report.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

import pandas as pd

from calm import __version__
from calm.attributes import LEVELS
from calm.attributes.edits import edit_labels
from calm.data.store.text import clean
from calm.evaluation.base import Bench, group_keys, item_keys, load_model, rated
from calm.evaluation.settings import ReportParams
from calm.evaluation.stage import settings
from calm.io import atomic_file
from calm.layout import Layout
from calm.params import Params
from calm.report import plots, tables

if TYPE_CHECKING:
    from calm.assistant import Calm

PACKAGES = ("torch", "transformers", "peft", "numpy", "scipy", "scikit-learn", "pandas", "pillow", "pycocoevalcap")


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
        "parts": tables.parts(params, layout, ablations),
        "ablations": ablations,
        "cross_validations": tables.cross_validations(params, layout),
        "reported": tables.words("reported"),
        "examples": examples(bench),
        "provenance": provenance(params, bench.model.provenance),
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


@dataclass(frozen=True)
class Example:
    """One photograph as the page shows it; images are data URIs."""

    title: str
    image: str
    edits: str  # empty: as photographed
    score: str
    given: str
    synthetic_score: bool
    comment: str
    suggestions: tuple[str, ...]
    overlays: tuple[tuple[str, str], ...]  # (level, data URI)


def examples(bench: Bench[ReportParams]) -> list[Example]:
    """params.report.examples held-out photographs, each as it was taken and next to it one of its edited views."""
    rows = chosen(rated(bench, "test"), bench)
    images = [bench.photograph(*key) for key in item_keys(rows)]
    size, model = bench.params.evaluation.batch_size, bench.model
    scores = model.score(images, batch_size=size)
    comments = model.comment(images, batch_size=size, max_new_tokens=bench.settings.max_new_tokens)
    suggestions = model.suggest(images, top=3)
    attention = model.attention(images)
    found = []
    for i, (item_id, known, given, origin) in enumerate(
        zip(rows["item_id"], rows["synthetic_edits"], rows["score"], rows["origin"], strict=True)
    ):
        edits = ", ".join(label.replace("_", " ") for label in edit_labels(known) or [])
        overlays = tuple((level, plots.overlay(images[i], attention[level][i])) for level in LEVELS)
        texts = tuple(f"{one.text} ({one.probability:.0%})" for one in suggestions[i])
        found.append(
            Example(
                title=item_id,
                image=plots.photograph(images[i]),
                edits=edits,
                score=f"{scores[i].regression:.1f}",
                given=f"{given:.1f}",
                synthetic_score=origin.startswith("synthetic"),
                comment=clean(comments[i]),
                suggestions=texts,
                overlays=overlays,
            )
        )
    return found


def chosen(rows: pd.DataFrame, bench: Bench[ReportParams]) -> pd.DataFrame:
    """Seeded draw: groups in random order, of each a photograph as it was taken and one edited view of it."""
    rng = bench.rng("examples")
    taken: list[int] = []
    groups = list(dict.fromkeys(group_keys(rows)))
    for position in rng.permutation(len(groups)):
        dataset, group = groups[int(position)]
        members = rows[(rows["dataset"] == dataset) & (rows["group"] == group)]
        plain = members[members["synthetic_edits"].isna()]
        if plain.empty:
            continue
        photograph = int(rng.choice(plain.index))
        views = members[members["item_id"].str.startswith(str(rows["item_id"][photograph]) + "#v")]
        taken += [photograph, *([int(rng.choice(views.index))] if len(views) else [])]
    return rows.loc[taken[: bench.settings.examples]]


def provenance(params: Params, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Profile, seed, what the model says of its parts, package versions. Nothing of when or where it ran."""
    rows = [("profile", params.profile), ("seed", str(params.seed)), *_flat("", facts), ("calm", __version__)]
    return rows + [(name, metadata.version(name)) for name in PACKAGES]


def _flat(prefix: str, facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in sorted(facts):
        value = facts[key]
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
