"""Figures as SVG and CSV bytes that are the same on every run; colours are named once: the report themes them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from calm.evaluation.statistics.metrics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from calm.evaluation.statistics.calibration import Reliability

INK, MUTED, GRID, PAPER = "#1d2329", "#66707b", "#d9dee3", "#fefefd"
ACCENT, SECOND, THIRD = "#0b7285", "#c2571a", "#7048a8"
SERIES = (ACCENT, SECOND, THIRD, "#5c7a13", "#a61e5b")
HEAT = "#0b7286"  # one off ACCENT: cells fade from paper to this by opacity, which works on any background
WIDTH = 4.2  # inches; the page shows a figure at about its own size, so that its text stays readable on a phone
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "calm",  # ids in the file, random otherwise
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # shipped with matplotlib: the layout is the same everywhere
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.facecolor": PAPER,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.facecolor": PAPER,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@contextmanager
def figure(height: float = 3.0, width: float = WIDTH) -> Iterator[tuple[Figure, Axes]]:
    """A styled figure with one axes, drawn without any display (no pyplot, no global state)."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        yield drawn, drawn.subplots()


def svg(drawn: Figure) -> bytes:
    """The figure as SVG without date or program version."""
    buffer = io.BytesIO()
    nothing: dict[str, str | None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    drawn.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()


def csv(frame: pd.DataFrame) -> bytes:
    """A table for `dvc plots`, figures rounded so that the bytes do not hang on the last bit of a sum."""
    buffer = io.StringIO()
    frame.round(6).to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue().encode("utf-8")


def scatter(
    x: ArrayLike,
    series: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
) -> bytes:
    """Points of one or more series against the same `x`, with the line where both agree."""
    with figure(height=3.6) as (drawn, axes):
        for colour, marker, (name, y) in zip(SERIES, "os^Dv", series.items(), strict=False):
            axes.scatter(x, y, s=11, color=colour, marker=marker, alpha=0.55, linewidths=0, label=name)
        values = np.concatenate([np.asarray(v, dtype=float).ravel() for v in (x, *series.values())])
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        room = 0.04 * (high - low) or 1.0
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(low - room, high + room), ylim=(low - room, high + room))
        axes.set_aspect("equal")
        if len(series) > 1:
            _legend(axes, len(series))
        return svg(drawn)


def reliability(bins: Mapping[str, Sequence[Reliability]], *, xlabel: str, ylabel: str) -> bytes:
    """Mean given against mean predicted score of each bin, bars of one standard error, and the line of equality."""
    with figure(height=3.6) as (drawn, axes):
        for colour, marker, (name, rows) in zip(SERIES, "os^Dv", bins.items(), strict=False):
            x, y = [row.predicted for row in rows], [row.given for row in rows]
            error = np.nan_to_num([row.deviation for row in rows])
            axes.errorbar(x, y, yerr=error, color=colour, marker=marker, markersize=4, linewidth=1.1, label=name)
        ends = [value for rows in bins.values() for row in rows for value in (row.predicted, row.given)]
        axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        _legend(axes, len(bins))
        return svg(drawn)


def strips(values: Mapping[str, NDArray[np.float64]], *, xlabel: str) -> bytes:
    """One row a name: each value as a tick, the middle half as a bar, the median as a line."""
    with figure(height=0.7 + 0.38 * len(values)) as (drawn, axes):
        for row, points in enumerate(values.values()):
            low, median, high = np.quantile(points, [0.25, 0.5, 0.75])
            axes.barh(row, high - low, left=low, height=0.55, color=ACCENT, alpha=0.3)
            axes.plot([median, median], [row - 0.3, row + 0.3], color=SECOND, linewidth=2)
            axes.scatter(points, np.full(len(points), row), marker="|", s=30, linewidths=0.7, color=INK, alpha=0.5)
        axes.set_yticks(range(len(values)), list(values))
        axes.invert_yaxis()
        axes.set_xlabel(xlabel)
        axes.grid(visible=False, axis="y")
        return svg(drawn)


def bars(
    names: Sequence[str],
    estimates: Sequence[Estimate],
    *,
    beside: Sequence[float | None],
    beside_label: str,
    xlabel: str,
    colours: Sequence[str] | None = None,
) -> bytes:
    """Horizontal bars with their intervals, and a tick on each bar where chance or a baseline stands."""
    positions = np.arange(len(names))
    with figure(height=0.55 + 0.25 * len(names)) as (drawn, axes):
        values = [estimate.value or 0.0 for estimate in estimates]
        axes.barh(positions, values, height=0.62, color=list(colours or [ACCENT] * len(names)), alpha=0.85)
        for position, estimate in zip(positions, estimates, strict=True):
            if estimate.low is not None and estimate.high is not None:
                axes.plot([estimate.low, estimate.high], [position] * 2, color=INK, linewidth=1.1)
        known = [(p, value) for p, value in zip(positions, beside, strict=True) if value is not None]
        if known:
            where, ticks = zip(*known, strict=True)
            axes.scatter(ticks, where, marker="|", s=60, linewidths=2, color=SECOND, label=beside_label, zorder=3)
            _legend(axes, 1)
        axes.set_yticks(positions, [name.replace("_", " ") for name in names])
        axes.invert_yaxis()
        axes.set_xlabel(xlabel)
        axes.grid(visible=False, axis="y")
        return svg(drawn)


def confusion(counts: NDArray[np.float64], names: Sequence[str], *, title: str) -> bytes:
    """A confusion matrix (rows: true state, columns: recognised state), cells shaded by the share of their row."""
    from matplotlib.patches import Rectangle

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size, labels = len(names), [name.replace("_", " ") for name in names]
    with figure(height=0.95 + 0.34 * size, width=WIDTH * 0.8) as (drawn, axes):
        for row, column in np.ndindex(size, size):
            share = float(shares[row, column])
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=HEAT, alpha=0.75 * share, linewidth=0))
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=INK)
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), title=title.replace("_", " "))
        axes.set_xticks(range(size), labels, rotation=30, ha="right")
        axes.set_yticks(range(size), labels)
        axes.grid(visible=False)
        return svg(drawn)


def lines(x: ArrayLike, series: Mapping[str, ArrayLike], *, title: str, xlabel: str) -> bytes:
    """Curves over one axis; gaps where a series has no value at a step."""
    with figure(height=2.5) as (drawn, axes):
        for index, (name, y) in enumerate(series.items()):
            points = np.asarray(y, dtype=float)
            known = np.isfinite(points)
            axes.plot(np.asarray(x)[known], points[known], color=SERIES[index % len(SERIES)], linewidth=1.4, label=name)
        axes.set(title=title, xlabel=xlabel)
        if len(series) > 1:
            axes.legend(loc="upper right")
        return svg(drawn)


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderaxespad=0.2,
        handletextpad=0.5,
        markerscale=1.4,
        fontsize=8,
    )
