"""What the report says in numbers, read from results/ and put into rows of text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from calm.data.store import tables
from calm.data.store.text import answers, captions, critiques
from calm.evaluation.base import ROW, Headline, Pair, Task
from calm.evaluation.stage import find_task
from calm.evaluation.statistics.metrics import MAE, PLCC, Bootstrap, Estimate
from calm.evaluation.statistics.ridge import RIDGE, RIDGE_LABEL
from calm.evaluation.tasks.personalised import METHODS, PERSONAL
from calm.evaluation.tasks.scoring import COMPARED
from calm.layout import Layout
from calm.params import Params

BETTER_WITH, BETTER_WITHOUT, NO_DIFFERENCE = "better with it", "better without it", "no difference shown"
NOT_RANKING = (PLCC.label, MAE.label)
ROW_KEYS = [field.name for field in ROW]
SHOWN = 3  # figures of each task where there is little room, the first of its headlines; the report has them all


class ReportError(ValueError):
    """Results that do not fit together; the message says what to run."""


@dataclass(frozen=True)
class Row:
    """One figure as text: `value` with its interval, what stands beside it, and `labels` that are not its task's."""

    label: str
    value: str
    interval: str
    beside: str
    note: str
    labels: str = ""

    @property
    def told(self) -> str:
        """The label, and what the figure is judged by where that is not what its task's others are judged by."""
        return f"{self.label} ({self.labels} labels)" if self.labels else self.label


@dataclass(frozen=True)
class Section:
    """One task's figures."""

    name: str
    task: Task
    rows: tuple[Row, ...]
    labels: str
    facts: str

    def judged_by(self, row: Row) -> str:
        """In a word, what kind of labels a row's figure is held against."""
        return row.labels or self.labels.split(":")[0]


@dataclass(frozen=True)
class Comparison:
    """A part of the method: a figure with it and without it, their paired difference, what that allows to say."""

    part: str
    figure: str
    with_it: str
    without: str
    difference: str
    verdict: str


@dataclass(frozen=True)
class Ablated:
    """An ablation: what it starts from, what it changes, and its figures beside the full recipe's."""

    start: str
    changed: Sequence[str]
    rows: Sequence[Comparison]

    @property
    def told(self) -> str:
        """In a sentence: what is worse without the part, what is better, and what shows no difference."""
        kinds = (("worse", BETTER_WITH), ("better", BETTER_WITHOUT), ("no difference shown", NO_DIFFERENCE))
        rows = [row for row in self.rows if not row.figure.startswith(NOT_RANKING)]
        figures = {row: f"{row.figure} ({row.without} for {row.with_it})" for row in rows}
        named = [(kind, [figures[row] for row in rows if row.verdict == reading]) for kind, reading in kinds]
        said = [f"{kind}: {', '.join(of_kind)}" for kind, of_kind in named if of_kind]
        return f"{'; '.join(said)}." if said else "nothing could be compared."


@dataclass(frozen=True)
class CrossValidated:
    """What one cross-validation is of, and its rows as text.

    A row is read beside `header`; baselines come first, and have nothing to be held against.
    """

    about: str
    header: Sequence[str]
    rows: Sequence[tuple[str, ...]]


def sections(params: Params, layout: Layout) -> list[Section]:
    """Every task of params.evaluation.tasks, in their order."""
    return [section(name, read_metrics(layout, name)) for name in params.evaluation.tasks]


def read_metrics(layout: Layout, name: str) -> dict[str, Any]:
    """results/NAME/metrics.json.

    Raises:
        FileNotFoundError: it is missing; the message says what to run.
    """
    return _read(layout.result(name) / "metrics.json", f"calm evaluate {name}")


def read_cross_validation(layout: Layout, name: str) -> dict[str, Any]:
    """results/cross_validation/NAME/metrics.json; raises as `read_metrics`."""
    return _read(layout.cross_validation(name) / "metrics.json", f"calm cross-validate {name}")


def _read(path: Path, command: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run `{command}`")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def section(name: str, metrics: Mapping[str, Any]) -> Section:
    """A task's headlines as rows."""
    task = find_task(name)
    rows = [_row(headline, metrics) for headline in task.headlines]
    for public, figures in metrics.get("publics", {}).items():
        told = (_row(headline, figures) for headline in task.headlines)
        rows += [replace(row, label=f"{public}: {row.label}") for row in told if row.interval]
    counted = ("public", "photographs", "items", "groups", "raters", "support", "draws")
    facts = ", ".join(f"{key}: {metrics[key]}" for key in counted if key in metrics)
    return Section(name, task, tuple(rows), str(metrics.get("labels", "")), facts)


def _row(headline: Headline, metrics: Mapping[str, Any]) -> Row:
    figure, entry = at(metrics, headline.path), headline.path.rpartition(".")[0]
    known = ((label, at(metrics, path)) for label, path in headline.beside)
    beside = ", ".join(f"{label} {number(value)}" for label, value in known if isinstance(value, int | float))
    note, labels = str(figure.get("reason", "")), at(metrics, f"{entry}.labels") or ""
    return Row(headline.label, number(figure.get("value")), interval(figure), beside, note, labels)


def at(metrics: Mapping[str, Any], path: str) -> Any:
    """The entry at a dotted path; an empty mapping where there is none (a figure that did not apply)."""
    found: Any = metrics
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return {}
        found = found[key]
    return found


def number(value: Any) -> str:
    """Three decimals; without a value, words instead of a figure."""
    return f"{value:.3f}" if isinstance(value, int | float) else "not available"


def interval(figure: Mapping[str, Any]) -> str:
    """'0.712 to 0.845', or nothing."""
    return f"{figure['low']:.3f} to {figure['high']:.3f}" if "low" in figure else ""


def ablations(params: Params, layout: Layout) -> dict[str, Ablated]:
    """Each ablation that was run, beside the full recipe on the same photographs.

    Raises:
        ReportError: the two were judged on different photographs.
    """
    settings = params.evaluation.bootstrap
    bootstrap = Bootstrap(settings.samples, settings.level, params.seed)
    found = {}
    for name, ablation in params.ablations.items():
        folder = layout.ablation(name) / "predictions"
        if not folder.is_dir():
            continue
        pairs: list[Pair] = []
        for task in ablation.tasks:
            files = (layout.result(task) / "predictions.parquet", folder / f"{task}.parquet")
            full, other = map(pd.read_parquet, files)
            if not full[ROW_KEYS].equals(other[ROW_KEYS]):
                raise ReportError(f"ablation '{name}' judged other photographs than the full recipe: run `dvc repro`")
            compared = find_task(task).compared
            assert compared is not None, task  # stage ablate refuses such a task
            pairs += compared(full, other, bootstrap)
        changed = [f"{key}: {value}" for key, value in ablation.change.items()]
        found[name] = Ablated(f"start: {ablation.start}", changed, [_comparison(name, pair) for pair in pairs])
    return found


def cross_validations(params: Params, layout: Layout) -> dict[str, CrossValidated]:
    """Every cross-validation of params, of each public, as text."""
    header = ("scores by", "SRCC", "PLCC", f"SRCC minus {RIDGE_LABEL}", "averaged with it adds")
    found = {}
    for name in params.cross_validations:
        metrics = read_cross_validation(layout, name)
        drawn = f"{metrics['folds']} folds that share no {metrics['by']}, seeds {', '.join(map(str, metrics['seeds']))}"
        for public, of_public in metrics["publics"].items():
            about = f"{of_public['items']} photographs ({of_public['labels']} scores), {drawn}."
            rows = [(RIDGE_LABEL, *(_told(of_public[RIDGE][key]) for key in ("srcc", "plcc")), "", "")]
            for recipe in metrics["order"]:
                for readout, figures in of_public["recipes"][recipe].items():
                    told = [_told(figures[key]) for key in ("srcc", "plcc")]
                    gaps = (_gap(figures[key]) for key in (f"over_{RIDGE}", f"gain_with_{RIDGE}"))
                    rows.append((f"{recipe.replace('_', ' ')}, {readout}", *told, *gaps))
            found[f"{name}, {public}"] = CrossValidated(about, header, rows)
    return found


def _told(figure: Mapping[str, Any]) -> str:
    return f"{number(figure['value'])} ({interval(figure)})"


def _gap(figure: Mapping[str, Any]) -> str:
    gap = Estimate(**figure)
    return signed(gap) if gap.p is None else f"{signed(gap)}, p {gap.p:.3f}"


def _comparison(name: str, pair: Pair) -> Comparison:
    ours, theirs = ("" if value is None else number(value) for value in (pair.first, pair.second))
    said = verdict(pair.difference, higher_is_better=pair.higher_is_better)
    part = f"full recipe, not {name.replace('_', ' ')}"
    return Comparison(part, pair.label, ours, theirs, signed(pair.difference), said)


def signed(gap: Estimate) -> str:
    """A difference, '+0.011 (-0.008 to +0.029)'."""
    if gap.value is None:
        return "not available"
    spread = f" ({gap.low:+.3f} to {gap.high:+.3f})" if gap.low is not None else ""
    return f"{gap.value:+.3f}{spread}"


def verdict(gap: Estimate, *, higher_is_better: bool) -> str:
    """What the interval of full minus without allows to say."""
    if gap.value is None or gap.low is None or gap.high is None:
        return gap.reason or "no interval"
    if gap.low <= 0 <= gap.high:
        return NO_DIFFERENCE
    return BETTER_WITH if (gap.low > 0) == higher_is_better else BETTER_WITHOUT


def parts(params: Params, layout: Layout, ablations: Mapping[str, Ablated]) -> list[Comparison]:
    """Rows of every ablation, readout and personal method that results/ has; of scores the ranking alone."""
    rows = [row for found in ablations.values() for row in found.rows if not row.figure.startswith(NOT_RANKING)]
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
    for public, of_public in metrics["publics"].items():
        ours = number(at(of_public, f"recipes.{first}.regression.srcc.value"))
        for other in others:
            theirs = number(at(of_public, f"recipes.{other}.regression.srcc.value"))
            gap = at(of_public, f"compared.{first}_minus_{other}")
            part = f"{name}, {public}: {first} instead of {other}".replace("_", " ")
            yield Comparison(part, figure, ours, theirs, *_said(gap))


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


def sources(params: Params, layout: Layout) -> list[tuple[str, str, str]]:
    """(dataset, what, how it came about) for every kind of photograph and label that was used."""
    rows, origins = [], words("origins")
    for dataset in params.data.datasets:
        items = tables.items(layout, dataset)
        edited = int(items["synthetic_edits"].notna().sum())
        rows.append((dataset, f"{len(items) - edited:,} photographs", "real, as they were taken"))
        if edited:
            rows.append((dataset, f"{edited:,} views", "synthetic: seeded edits of those photographs, all known"))
        ratings, comments = tables.ratings(layout, dataset), tables.comments(layout, dataset)
        kinds = (
            ("scores", ratings[ratings["rater_id"].isna()]),
            ("ratings by single raters", ratings[ratings["rater_id"].notna()]),
            ("comments", comments[critiques(comments)]),
            ("captions", comments[captions(comments)]),
            ("answers to questions", comments[answers(comments)]),
        )
        for what, labels in kinds:
            for origin, count in labels["origin"].value_counts().sort_index().items():
                rows.append((dataset, f"{count:,} {what}", origins.get(str(origin), str(origin))))
    return rows


def leakage(layout: Layout) -> str:
    """One sentence on what the leakage filter did; empty where it has not been run."""
    path = layout.lists / "leakage.json"
    if not path.is_file():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    return (
        f"{found['test_items']:,} held-out pictures; {found['leaked_after']} of them, or near-duplicates of them "
        f"(perceptual hash within {found['phash_distance']} bits), are left in any training list."
    )


@cache
def words(name: str) -> dict[str, Any]:
    """calm/report/NAME.yaml: `reported`, figures of the paper and of others; `origins`, how labels came about."""
    from ruamel.yaml import YAML

    found: dict[str, Any] = YAML(typ="safe").load((resources.files("calm.report") / f"{name}.yaml").read_bytes())
    return found
