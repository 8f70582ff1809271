"""What lmms-eval asks: the test photographs that `calm evaluate` judges, from the run of calm in the working directory.

Functions named in tasks/*.yaml. A file of tasks/sets/ says which dataset a task is about.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from PIL.Image import Image

from calm.attributes.edits import edit_labels, edited_copies, labels_of
from calm.evaluation import stage
from calm.evaluation.base import Bench, item_keys
from calm.evaluation.tasks import commenting, personalised, scoring, suggesting
from calm.instructions import COMMENT_PROMPT, IMAGE_TOKEN, SCORE_PROMPT, SUGGESTION_PROMPT, as_public, personal_messages
from calm.layout import Layout
from calm.params import load_params

Document = dict[str, Any]


@cache
def _bench(task: str, root: Path) -> Bench[Any]:
    """A task's test lists and photographs; there is no model on it, lmms-eval asks."""
    params = load_params(root / "params.yaml")
    return Bench(task, params, Layout(root), None, stage.settings(task, params))  # type: ignore[arg-type]


def bench(task: str) -> Bench[Any]:
    """That of the run in the working directory."""
    return _bench(task, Path.cwd())


def _documents(made: Callable[[Document], pd.DataFrame]) -> Callable[[Dataset], Dataset]:
    """What lmms-eval calls with the one row of a file of sets/."""

    def documents(sets: Dataset) -> Dataset:
        try:
            return Dataset.from_list(made(sets[0]).to_dict("records"))
        except (ValueError, OSError) as error:  # lmms-eval would try again, and lose what it was
            raise SystemExit(f"calm: {error}") from None

    return documents


def _of(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    found = rows[rows["dataset"] == dataset]
    if found.empty:
        there = ", ".join(sorted(rows["dataset"].unique()))
        raise ValueError(f"no test photograph of '{dataset}' in this run, which has: {there}")
    return found.reset_index(drop=True)


@_documents
def scores(wanted: Document) -> pd.DataFrame:
    """Photographs with the crowd's score on 1..10."""
    rows = _of(scoring.rated(bench("scoring"), "test"), wanted["dataset"])
    return rows[["dataset", "item_id", "score", "origin"]]


@_documents
def comments(wanted: Document) -> pd.DataFrame:
    """Photographs with reference comments."""
    rows = _of(commenting.commented(bench("commenting")), wanted["dataset"])
    return rows[["dataset", "item_id", "references", "origin"]].assign(question=COMMENT_PROMPT)


@_documents
def suggestions(_: Document) -> pd.DataFrame:
    """Photographs with what was done to them, and without anything: protocol calm-suggesting-2."""
    tested = bench("suggesting")
    plain, views = suggesting.chosen(tested)
    parts = [plain.assign(made_here=False, edits=[[] for _ in range(len(plain))])]
    if len(views):
        parts.append(views.assign(made_here=False, edits=[edit_labels(text) for text in views["synthetic_edits"]]))
    else:
        drawn = [labels_of(suggesting.edits_here(tested, *key)) for key in item_keys(plain)]
        parts.append(plain.assign(made_here=True, edits=drawn))
    rows = pd.concat(parts).sort_values(["dataset", "item_id", "made_here"], ignore_index=True)
    return rows[["dataset", "item_id", "group", "made_here", "edits"]].assign(question=SUGGESTION_PROMPT)


@_documents
def personal(wanted: Document) -> pd.DataFrame:
    """Photographs of a held-out person, each with those that the person scored before it."""
    sets, _ = personalised.drawn_sets(bench("personalised"))
    sets = _of(sets[sets["shots"] == wanted["shots"]], wanted["dataset"])
    parts = []
    for _, one in sets.groupby(["dataset", "rater_id", "shots", "draw"]):
        shown = one[one["part"] == "support"]
        asked = one[one["part"] == "query"].drop(columns=["part", "crowd"])
        both = [list(shown["item_id"])] * len(asked), [list(shown["rating"])] * len(asked)
        parts.append(asked.assign(shown=pd.Series(both[0], asked.index), given=pd.Series(both[1], asked.index)))
    return pd.concat(parts, ignore_index=True)


def score_question(document: Document, lmms_eval_specific_kwargs: Document | None = None) -> str:
    """The paper's prompt; calm itself is asked as the raters of the dataset would answer."""
    named = (lmms_eval_specific_kwargs or {}).get("public")
    return as_public(SCORE_PROMPT, document["dataset"] if named else None)


def photographs(document: Document) -> list[Image]:
    """The photograph of a document, edited where the task edits it."""
    image = bench("scoring").photograph(document["dataset"], document["item_id"])
    if document.get("made_here"):
        edits = suggesting.edits_here(bench("suggesting"), document["dataset"], document["item_id"])
        return edited_copies(image, [edits])
    return [image]


def personal_photographs(document: Document) -> list[Image]:
    """Those that the person has scored, then the one in question."""
    shown = (*document["shown"], document["item_id"])
    return [bench("personalised").photograph(document["dataset"], item_id) for item_id in shown]


def personal_question(document: Document) -> str:
    """The same conversation for models that take one text."""
    return "\n".join(turn["content"] for turn in personal_messages(document["given"]))


def personal_chat(document: Document) -> list[Document]:
    """A turn for each photograph, the person's scores as answers between them."""
    images = iter(personal_photographs(document))
    chat = []
    for turn in personal_messages(document["given"]):
        text = turn["content"].removeprefix(IMAGE_TOKEN)
        shown = [{"type": "image", "url": next(images)}] if text != turn["content"] else []
        chat.append({"role": turn["role"], "content": [*shown, {"type": "text", "text": text.strip()}]})
    return chat
