"""What `calm personalise` reads and computes: a person's csv, and the methods of the task `personalised`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from calm.assistant.personal import Observed
from calm.cli.photographs import read_photographs
from calm.data.reading.cells import rating, read_spreadsheet, require, spellings
from calm.evaluation.statistics.metrics import SRCC, UndefinedMetric
from calm.evaluation.statistics.ridge import Scaling, ridge
from calm.instructions import rescale

if TYPE_CHECKING:
    from PIL.Image import Image

    from calm.assistant import Calm

BATCH = 8  # scored photographs in memory at a time
LEAST = 3  # scored photographs; fewer cannot be left out one by one
MARGIN = 0.05  # of the scale, at either end, that what lies beyond it is pressed into


@dataclass(frozen=True)
class Given:
    """Photographs that a person has scored, with scores on calm's scale of 1 to 10."""

    paths: tuple[Path, ...]
    scores: tuple[float, ...]


def read_ratings(path: Path, low: float, high: float) -> tuple[Given, list[str]]:
    """A csv with columns file and score, as any spreadsheet saves it; names are relative to the csv.

    Returns:
        What is scored, and the photographs of rows with an empty score.

    Raises:
        ValueError: naming the csv, the line and the column.
        FileNotFoundError: there is no such csv.
    """
    if not low < high:
        raise ValueError(f"--min {low:g} is not below --max {high:g}")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: a csv with columns file, score")
    scored: dict[Path, float] = {}
    unscored: list[str] = []
    cells = read_spreadsheet(path)
    require(cells, ("file", "score"), path)
    for line, name, text in zip(cells.index, cells["file"], cells["score"], strict=True):
        where = f"{path}, line {line}"
        photograph = _beside(path, name)
        if photograph is None:
            raise ValueError(f"{where}, column 'file': no photograph '{name}' beside the csv")
        if not text:
            unscored.append(str(photograph))
        elif photograph in scored:
            raise ValueError(f"{where}, column 'file': '{name}' is scored twice")
        else:
            scored[photograph] = rescale(rating(text, low, high, where, " (--min, --max)"), low, high)
    if len(scored) < LEAST:
        raise ValueError(f"{path}: {len(scored)} photographs are scored, at least {LEAST} are needed")
    if len(set(scored.values())) == 1:
        raise ValueError(f"{path}: every photograph has the same score: there is nothing to learn")
    return Given(tuple(scored), tuple(scored.values())), unscored


def _beside(path: Path, name: str) -> Path | None:
    """The file that a csv calls so."""
    return next((way for one in spellings(name) if (way := path.parent / one).is_file()), None)


def rows_of(
    calm: Calm, images: Sequence[Image], given: Given, *, scale: tuple[float, float], how: str, readout: str
) -> Iterator[dict[str, Any]]:
    """Personal and generic score of each photograph, on the person's own scale."""
    (support, scores), seen = _observed(calm, given, readout), calm.observe(images)
    generic = getattr(seen, readout)
    if how == "ridge":
        # As the task `personalised`; scaled by the scored photographs, so a batch does not change the features.
        scaling = Scaling.fit(support.pooled)
        left_over = scores - getattr(support, readout)
        personal = generic + ridge(scaling(support.pooled), left_over, scaling(seen.pooled))
    else:
        expected, regressed = calm.in_context(support.tokens, scores.tolist()).score(seen.tokens)
        personal = regressed if readout == "regression" else expected
    low, high = scale
    for own, plain in zip(within(personal), within(generic), strict=True):
        yield {"score": low + own * (high - low), "generic": low + plain * (high - low)}


def within(scores: np.ndarray) -> list[float]:
    """Scores on 1..10 as shares of the scale; what reaches beyond an end is pressed in before it, in its order."""
    shares = (scores - 1) / 9
    middle = np.clip(shares, MARGIN, 1 - MARGIN)
    inside: np.ndarray = middle + MARGIN * np.tanh((shares - middle) / MARGIN)
    return [float(share) for share in inside]


@cache
def _observed(calm: Calm, given: Given, readout: str) -> tuple[Observed, np.ndarray]:
    """The scored photographs that can be read, and their scores. Tells how well they predict one another.

    Raises:
        ValueError: too few of them can be read.
    """
    scored = dict(zip(map(str, given.paths), given.scores, strict=True))
    read: list[str] = []
    parts: list[Observed] = []
    for _, images in read_photographs([*scored], BATCH, calm.max_side):
        read += images
        parts += [calm.observe([*images.values()])] if images else []
    if len(read) < LEAST:
        raise ValueError(f"{len(read)} of {len(scored)} scored photographs can be read; {LEAST} are needed")
    support, scores = Observed.joined(parts), np.array([scored[path] for path in read])
    generic = getattr(support, readout)
    try:
        agreement = SRCC.point(_left_out(support.pooled, scores - generic) + generic, scores)
        result = f"SRCC {agreement:.2f}, generic score {SRCC.point(generic, scores):.2f}"
    except UndefinedMetric as error:
        result = f"not defined, {error}"
    typer.echo(f"Ridge on your own {len(scores)} photographs, each left out in turn: {result}", err=True)
    return support, scores


def _left_out(pooled: np.ndarray, left_over: np.ndarray) -> np.ndarray:
    """What the generic score leaves over of each photograph's score, as ridge predicts it from the others."""
    features, rows = Scaling.fit(pooled)(pooled), np.arange(len(pooled))
    return np.array([ridge(features[rows != row], left_over[rows != row], features[[row]])[0] for row in rows])
