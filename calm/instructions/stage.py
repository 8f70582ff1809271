"""Stage `build_instructions`: prompts and answers of every task from lists, ratings and comments."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pandas as pd

from calm.attributes.naming import naming_rules, sound_named, states_named
from calm.attributes.taxonomy import taxonomy
from calm.data.store import tables
from calm.data.store.aspects import captions, critiques
from calm.data.store.images import ImageStore
from calm.data.store.schema import INSTRUCTION, PROMPT
from calm.instructions.questions import question_rows
from calm.instructions.wording import (
    CAPTION_PROMPT,
    COMMENT_PROMPT,
    PROMPTS,
    SCORE_PROMPT,
    Row,
    format_score,
    messages,
    rescale,
    safe_answer,
)
from calm.io import atomic_dir, read_table, write_table
from calm.layout import Layout
from calm.params import Params
from calm.seeds import derive

_LABELS, _LABEL_PROBABILITY = 3, 0.1  # ImageNet classes named in a caption: at most, at least


def build_instructions(params: Params, layout: Layout) -> None:
    """Stage build_instructions: write data/instructions/{generic,comments,scores}.parquet, test rows too."""
    settings = params.instructions
    comments = _comment_rows(layout, settings.comments_per_item, params.seed)
    kept = _drawn_share(comments, settings.score_share_of_comments, params.seed)
    kept = [{**row, "weight": settings.score_weight_of_comments} for row in kept]
    uses = {
        "generic": [
            *_caption_rows(layout),
            *_class_rows(params, layout),
            *question_rows(layout, "generic", params.seed),
        ],
        "comments": [*comments, *question_rows(layout, "comments", params.seed)],
        "scores": [*_score_rows(layout), *kept],
    }
    ways = ways_of_asking(params, layout)
    with atomic_dir(layout.instructions) as folder:
        for use, rows in uses.items():
            rows = [_asked(row, ways, params.seed) for row in rows]
            write_table(folder / f"{use}.parquet", tables.rows_to_frame(_ordered(rows), INSTRUCTION), INSTRUCTION)


def ways_of_asking(params: Params, layout: Layout) -> dict[str, list[str]]:
    """Prompts of each task for training, first the one that evaluation uses; the others are of stage generate_texts.

    Raises:
        ValueError: the stage wrote another number of them.
    """
    wanted = params.instructions.paraphrases
    if wanted == 1:
        return {task: [prompt] for task, prompt in PROMPTS.items()}
    frame = read_table(layout.prompts, PROMPT)
    found = {task: [safe_answer(prompt) for prompt in frame.loc[frame["task"] == task, "prompt"]] for task in PROMPTS}
    for task, prompts in found.items():
        if len(prompts) != wanted:
            raise ValueError(
                f"{layout.prompts} has {len(prompts)} prompts for '{task}', instructions.paraphrases asks for "
                f"{wanted}: run `calm generate-texts` again"
            )
    return found


def _asked(row: Row, ways: dict[str, list[str]], seed: int) -> Row:
    """The row asked for in words drawn by seed; test rows keep the words that evaluation uses."""
    prompts = ways.get(row["task"], ())  # none for questions: their words are people's or a model's already
    if row["split"] != "train" or len(prompts) <= 1:
        return row
    names = (row["task"], row["dataset"], *row["item_ids"], row["answer"])
    return {**row, "messages": messages(prompts[derive(seed, "prompt", *names) % len(prompts)])}


def _comment_rows(layout: Layout, per_item: int, seed: int) -> list[Row]:
    """At most `per_item` comments of each listed item, drawn by seed."""

    def order(comment: pd.Series) -> tuple[int, str]:
        return derive(seed, "comments", comment["dataset"], comment["comment_id"]), comment["comment_id"]

    rows, rules = [], naming_rules(taxonomy())
    for item, said in _listed(layout, "comments", tables.comments, critiques):
        for comment in sorted(said, key=order)[:per_item]:
            answer = safe_answer(comment["text_clean"])
            row = _row("comment", item, COMMENT_PROMPT, answer, comment["origin"])
            # Told of what the answer names, the model learns to say that and no more; of an answer that names nothing
            # it is told what is recognised, as later on.
            rows.append({**row, "told": [*states_named(answer, rules), *sound_named(answer, rules)] or None})
    return rows


def _caption_rows(layout: Layout) -> list[Row]:
    """Every caption of each listed item."""
    return [
        _row("caption", item, CAPTION_PROMPT, safe_answer(caption["text_clean"]), caption["origin"])
        for item, said in _listed(layout, "generic", tables.comments, captions)
        for caption in said
    ]


def _score_rows(layout: Layout) -> list[Row]:
    """The crowd's score of each listed item, on SCORE_RANGE."""
    rows = []
    for item, given in _listed(layout, "scores", tables.ratings, lambda frame: frame["rater_id"].isna()):
        for rating in given:
            score = rescale(rating["score"], rating["score_min"], rating["score_max"])
            row = _row("score", item, SCORE_PROMPT, format_score(score), rating["origin"])
            rows.append({**row, "score": score})
    return rows


def _class_rows(params: Params, layout: Layout) -> list[Row]:
    """A caption for each listed item from the ImageNet classes that the vision encoder itself finds likely."""
    from calm.model.parts.vision import imagenet_labels

    rows = []
    for dataset, listed in tables.role_list(layout, "generic").groupby("dataset", sort=True):
        images = map(ImageStore(layout.prepared(str(dataset))).__getitem__, listed["item_id"])  # decoded when asked for
        classes = imagenet_labels(params.parts.vision, images, runtime=params.runtime)
        for (_, item), labels in zip(listed.iterrows(), classes, strict=False):  # none of an encoder without classes
            names = [name for name, probability in labels[:_LABELS] if probability >= _LABEL_PROBABILITY]
            if names:
                answer = safe_answer(f"It may show {' or '.join(names)}.")
                rows.append(_row("caption", item, CAPTION_PROMPT, answer, "imagenet_class"))
    return rows


def _listed(
    layout: Layout, role: str, read: Callable[[Layout, str], pd.DataFrame], wanted: Callable[[pd.DataFrame], pd.Series]
) -> Iterable[tuple[pd.Series, list[pd.Series]]]:
    """Each item of a role's list with the wanted rows that a table has for it."""
    for dataset, listed in tables.role_list(layout, role).groupby("dataset", sort=True):
        frame = read(layout, str(dataset))
        by_item: dict[str, list[pd.Series]] = {}
        for _, row in frame[wanted(frame)].iterrows():
            by_item.setdefault(row["item_id"], []).append(row)
        for _, item in listed.iterrows():
            yield item, by_item.get(item["item_id"], [])


def _drawn_share(rows: list[Row], share: float, seed: int) -> list[Row]:
    """That share of the training rows, drawn by seed."""
    train = [row for row in _ordered(rows) if row["split"] == "train"]
    keys = [derive(seed, "score-stage", row["dataset"], *row["item_ids"], row["answer"]) for row in train]
    order = sorted(range(len(train)), key=lambda number: (keys[number], number))
    return [train[number] for number in order[: round(share * len(train))]]


def _row(task: str, item: pd.Series, prompt: str, answer: str, origin: str) -> Row:
    return {
        "task": task,
        "dataset": item["dataset"],
        "item_ids": [item["item_id"]],
        "split": item["split"],
        "messages": messages(prompt),
        "answer": answer,
        "weight": 1.0,
        "origin": origin,
    }


def _ordered(rows: list[Row]) -> list[Row]:
    """Independent of how the rows came about; training shuffles by seed and step."""
    return sorted(rows, key=lambda row: (row["dataset"], row["item_ids"], row["task"], row["answer"], row["origin"]))
