"""Stage `build_instructions`: prompts and answers of every task from lists, ratings and comments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from calm.attributes.naming import naming_rules, sound_named, states_named
from calm.attributes.spoilt import EMPTY, SPOILT
from calm.attributes.taxonomy import taxonomy
from calm.data.settings import Spoilt
from calm.data.store import tables
from calm.data.store.aspects import captions, critiques
from calm.data.store.images import ImageStore
from calm.data.store.schema import INSTRUCTION, PROMPT
from calm.instructions.questions import question_rows
from calm.instructions.rows import Label, Row, instruction, labels
from calm.instructions.wording import (
    CAPTION_PROMPT,
    COMMENT_PROMPT,
    PROMPTS,
    SCORE_PROMPT,
    as_public,
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
    kept = _drawn_share(comments, settings.score_share_of_comments, params.seed, "score-stage")
    kept = [{**row, "weight": settings.score_weight_of_comments} for row in kept]
    scores = _score_rows(layout)
    uses = {
        "generic": [
            *_caption_rows(layout),
            *_class_rows(params, layout),
            *question_rows(layout, "generic", params.seed),
        ],
        "comments": [*comments, *question_rows(layout, "comments", params.seed)],
        "scores": [*scores, *_spoilt_rows(scores, settings.spoilt, params.seed), *kept],
    }
    ways = ways_of_asking(params, layout)
    with atomic_dir(layout.instructions) as folder:
        for use, rows in uses.items():
            rows = [_asked(row, ways, params.data.roles.scores, params.seed) for row in rows]
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


def _asked(row: Row, ways: dict[str, list[str]], publics: Sequence[str], seed: int) -> Row:
    """The row asked for in words drawn by seed; test rows keep the words that evaluation uses.

    A score is asked for as the raters of its dataset give it, where that is not the first of `publics`.
    """
    prompts = ways.get(row["task"], ())
    if not prompts:  # a question's words are people's or a model's already
        return row
    names = (row["task"], row["dataset"], *row["item_ids"], row["answer"])
    drawn = derive(seed, "prompt", *names) % len(prompts) if row["split"] == "train" else 0
    public = row["dataset"] if row["task"] == "score" and row["dataset"] != publics[0] else None
    return {**row, "messages": messages(as_public(prompts[drawn], public))}


def _comment_rows(layout: Layout, per_item: int, seed: int) -> list[Row]:
    """At most `per_item` comments of each listed item, drawn by seed."""

    def order(comment: Label) -> tuple[int, str]:
        return derive(seed, "comments", comment["dataset"], comment["comment_id"]), comment["comment_id"]

    rows, rules = [], naming_rules(taxonomy())
    for frame in labels(layout, "comments", tables.comments, critiques):
        for _, comments in groupby(frame.to_dict("records"), key=itemgetter("item_id")):
            for comment in sorted(comments, key=order)[:per_item]:
                answer = safe_answer(comment["text_clean"])
                # Told of what the answer names, the model learns to say that and no more; of an answer that names
                # nothing it is told what is recognised, as later on.
                told = [*states_named(answer, rules), *sound_named(answer, rules)] or None
                rows.append({**instruction("comment", comment, messages(COMMENT_PROMPT), answer), "told": told})
    return rows


def _caption_rows(layout: Layout) -> list[Row]:
    """Every caption of each listed item."""
    return [
        instruction("caption", caption, messages(CAPTION_PROMPT), safe_answer(caption["text_clean"]))
        for frame in labels(layout, "generic", tables.comments, captions)
        for caption in frame.to_dict("records")
    ]


def _score_rows(layout: Layout) -> list[Row]:
    """The crowd's score of each listed item, on SCORE_RANGE."""
    rows = []
    for frame in labels(layout, "scores", tables.ratings, lambda ratings: ratings["rater_id"].isna()):
        for rating in frame.to_dict("records"):
            score = rescale(rating["score"], rating["score_min"], rating["score_max"])
            rows.append({**instruction("score", rating, messages(SCORE_PROMPT), format_score(score)), "score": score})
    return rows


def _spoilt_rows(scores: Sequence[Row], settings: Spoilt, seed: int) -> list[Row]:
    """Spoilt twins of a share of the training scores: ruined ones lose some points, empty ones get the lowest score."""
    train = [row for row in scores if row["split"] == "train"]
    lowest = {name: min(row["score"] for row in train if row["dataset"] == name) for name in _datasets(train)}
    found = []
    for row in _drawn_share(train, settings.share, seed, "spoilt"):
        how = SPOILT[derive(seed, "spoilt", row["dataset"], *row["item_ids"]) % len(SPOILT)]
        least = lowest[row["dataset"]]
        score = least if how in EMPTY else max(least, row["score"] - settings.points)
        found.append({**row, "spoilt": how, "score": score, "answer": format_score(score), "origin": "rule"})
    return found


def _datasets(rows: Sequence[Row]) -> set[str]:
    return {row["dataset"] for row in rows}


def _class_rows(params: Params, layout: Layout) -> list[Row]:
    """A caption for each listed item from the ImageNet classes that the vision encoder itself finds likely."""
    from calm.model.parts.pretrained import imagenet_labels

    rows = []
    for dataset, listed in tables.role_list(layout, "generic").groupby("dataset", sort=True):
        items = listed.assign(origin="imagenet_class").to_dict("records")
        images = map(ImageStore(layout.prepared(str(dataset))).__getitem__, listed["item_id"])  # decoded when asked for
        classes = imagenet_labels(params.parts.vision, images, params.runtime)
        for item, likely in zip(items, classes, strict=False):  # none of an encoder without classes
            names = [name for name, probability in likely[:_LABELS] if probability >= _LABEL_PROBABILITY]
            if names:
                answer = safe_answer(f"It may show {' or '.join(names)}.")
                rows.append(instruction("caption", item, messages(CAPTION_PROMPT), answer))
    return rows


def _drawn_share(rows: Sequence[Row], share: float, seed: int, name: str) -> list[Row]:
    """That share of the training rows, drawn by seed and a name of the draw."""
    train = [row for row in _ordered(rows) if row["split"] == "train"]
    keys = [derive(seed, name, row["dataset"], *row["item_ids"], row["answer"]) for row in train]
    order = sorted(range(len(train)), key=lambda number: (keys[number], number))
    return [train[number] for number in order[: round(share * len(train))]]


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """Independent of how the rows came about; training shuffles by seed and step."""
    return sorted(rows, key=lambda row: (row["dataset"], row["item_ids"], row["task"], row["answer"], row["origin"]))
