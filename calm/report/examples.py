"""Held-out photographs with what the model says of them."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from calm.attributes.edits import edit_labels
from calm.data.store.text import clean
from calm.evaluation.base import Bench, group_keys, item_keys
from calm.evaluation.tasks.scoring import rated
from calm.report import plots
from calm.report.settings import ReportParams

LEVELS = ("low", "middle", "high")


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
