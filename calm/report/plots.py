"""Figures inside the page: tasks' SVGs in the page's own colours, learning curves, where the levels looked."""

from __future__ import annotations

import base64
import io
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calm.evaluation.statistics import plots

if TYPE_CHECKING:
    from PIL.Image import Image

THEME = {
    plots.INK: "var(--ink)",
    plots.MUTED: "var(--muted)",
    plots.GRID: "var(--line)",
    plots.PAPER: "transparent",
    plots.HEAT: "var(--first)",
    **{
        colour: f"var(--{name})"
        for colour, name in zip(plots.SERIES, ("first", "second", "third", "fourth", "fifth"), strict=True)
    },
}
NOT_LOSSES = {"step", "learning_rate", "gradient_norm"}


def inline(drawing: bytes, number: int, label: str) -> str:
    """An SVG of `statistics.plots` as an element of the page: its colours become the page's, light or dark.

    `number` makes its ids unique in the page; `label` is read out by screen readers.
    """
    text = drawing.decode("utf-8")
    text = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL).strip()
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>f{number}-", text)
    text = re.sub(r'<svg (.*?)width="[^"]*"', r"<svg \1", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(<svg .*?)height="[^"]*"', r"\1", text, count=1, flags=re.DOTALL)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    for colour, name in THEME.items():
        text = text.replace(colour, name)
    return re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 var(--sans)", text)


def task_figures(folder: Path) -> list[tuple[str, bytes]]:
    """(name, SVG) of every figure in a task's plots folder, by name; confusion matrices last."""
    files = sorted(folder.glob("*.svg"), key=lambda path: (path.name.startswith("confusion-"), path.name))
    return [(path.stem, path.read_bytes()) for path in files]


def curves(folder: Path) -> list[tuple[str, bytes]]:
    """(run, SVG) of the losses in every learning curve of results/curves."""
    drawn = []
    for path in sorted(folder.glob("*.csv")):
        frame = pd.read_csv(path)
        losses = [
            name for name in frame.columns if name not in NOT_LOSSES and pd.api.types.is_numeric_dtype(frame[name])
        ]
        if "step" in frame and losses:
            series = {name.replace("_", " "): frame[name].to_numpy(dtype=float) for name in losses}
            drawn.append((path.stem, plots.lines(frame["step"], series, title=path.stem, xlabel="step")))
    return drawn


def photograph(image: Image, side: int = 420) -> str:
    """A photograph as a JPEG data URI, its longer side at most `side` pixels."""
    shown = image.convert("RGB")
    shown.thumbnail((side, side))
    return _jpeg(shown)


def overlay(image: Image, attention: NDArray[np.float32], side: int = 200) -> str:
    """Where a level looked, as a JPEG data URI: bright where it looked most, over the photograph in grey.

    `attention` is (h, w), non-negative. Its range in this photograph is stretched to the whole of the colour scale: the
    picture shows where, not how much.
    """
    from matplotlib import colormaps
    from PIL import Image as pillow

    grey = image.convert("L").convert("RGB")
    grey.thumbnail((side, side))
    spread = float(np.ptp(attention))
    scaled = (attention - attention.min()) / spread if spread else np.zeros_like(attention)
    heat = pillow.fromarray((scaled * 255).astype(np.uint8)).resize(grey.size, pillow.Resampling.BICUBIC)
    share = np.asarray(heat, dtype=np.float64)[..., None] / 255
    colours = colormaps["inferno"](share[..., 0])[..., :3] * 255
    mixed = np.asarray(grey, dtype=np.float64) * (1 - 0.35 - 0.4 * share) + colours * (0.35 + 0.4 * share)
    return _jpeg(pillow.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)))


def _jpeg(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
