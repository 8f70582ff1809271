"""Stage `build_instructions`: prompts and answers of every task from lists, ratings and comments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from calm.attributes.edits import EMPTY, SPOILT
from calm.attributes.grammar import BOUNDS, Rules, naming_rules, sound_named, standing_at, states_named
from calm.attributes.grammar import comment as composed
from calm.attributes.taxonomy import taxonomy
from calm.data.settings import Spoilt
from calm.data.store import tables
from calm.data.store.shards import ImageStore
from calm.data.store.tables import INSTRUCTION, PROMPT
from calm.data.store.text import QUESTION, answers, captions, critiques
from calm.instructions import (
    CAPTION_PROMPT,
    COMMENT_PROMPT,
    PROMPTS,
    SCORE_PROMPT,
    Message,
    as_public,
    format_score,
    messages,
    rescale,
    safe_answer,
)
from calm.io import atomic_dir, read_table, write_table
from calm.layout import Layout
from calm.params import Params
from calm.seeds import derive, stream

Row = dict[str, Any]  # of INSTRUCTION
Label = Mapping[Any, Any]  # a row of another table, with the split of its item
MOST_TURNS = 4  # of a conversation in the prompt, before the one to answer: the last ones
_LABELS, _LABEL_PROBABILITY = 3, 0.1  # ImageNet classes named in a caption: at most, at least


def build_instructions(params: Params, layout: Layout) -> None:
    """Stage build_instructions: write data/instructions/{generic,comments,scores}.parquet, test rows too."""
    settings = params.instructions
    scores = _score_rows(layout)
    comments = [
        *_comment_rows(layout, settings.comments_per_item, params.seed),
        *_verdict_rows(scores, params.data.roles.scores, settings.verdicts, params.seed),
    ]
    kept = _drawn_share(comments, settings.score_share_of_comments, params.seed, "score-stage")
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
                row = instruction("comment", comment, messages(COMMENT_PROMPT), answer)
                rows.append({**row, "told": _told(answer, rules)})
    return rows


def _told(answer: str, rules: Rules) -> list[str] | None:
    """The states that the model is told of beside an answer.

    Told of what the answer names, it learns to say that and no more; of an answer that names nothing it is told what is
    recognised (None), as later on.
    """
    return [*states_named(answer, rules), *sound_named(answer, rules)] or None


def _verdict_rows(scores: Sequence[Row], publics: Sequence[str], share: float, seed: int) -> list[Row]:
    """Synthetic comments on a share of the training photographs that the first public scored: a verdict by its score.

    A verdict is low for the lowest quarter of their scores, high for the highest. What a comment finds in order beside
    it is drawn at random and told to the model, which learns to repeat what it is told, and to see the verdict.
    """
    train = [row for row in scores if row["split"] == "train" and row["dataset"] == publics[0]]
    if not (drawn := _drawn_share(train, share, seed, "verdicts")):
        return []
    bounds = np.quantile([row["score"] for row in train], BOUNDS)
    found, rules = [], naming_rules(taxonomy())
    for row in drawn:
        rng = stream(seed, "verdict", row["dataset"], *row["item_ids"])
        answer = composed([], rng, standing=standing_at(row["score"], *bounds))
        label = {**row, "item_id": row["item_ids"][0], "origin": "synthetic_verdict"}
        made = instruction("comment", label, messages(COMMENT_PROMPT), answer)
        found.append({**made, "told": _told(answer, rules)})
    return found


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
        said = {"score": score, "answer": format_score(score), "origin": "synthetic_spoilt"}
        found.append({**row, "spoilt": how, **said})
    return found


def _datasets(rows: Sequence[Row]) -> set[str]:
    return {row["dataset"] for row in rows}


def _class_rows(params: Params, layout: Layout) -> list[Row]:
    """A caption for each listed item from the ImageNet classes that the vision encoder itself finds likely."""
    from calm.model.pretrained import imagenet_labels

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


def question_rows(layout: Layout, role: str, seed: int) -> list[Row]:
    """One row of INSTRUCTION for each record of questions about a listed item of the role.

    For the variant of the paper with question-answer data. In COMMENT, an answer has its question as aspect and
    RECORD.TURN as id (`calm.data.reading.conversations`), so that the turns of a record are a conversation again. One
    turn, drawn by seed, is what the model has to answer; those before it stand in the prompt with their answers.
    """
    rows = []
    for frame in labels(layout, role, tables.comments, answers):
        for record, turns in _records(frame):
            asked = derive(seed, "question", turns["dataset"].iloc[0], record) % len(turns)
            chosen = turns.iloc[asked].to_dict()
            asked_in = conversation(turns.iloc[max(0, asked - MOST_TURNS) : asked + 1])
            rows.append(instruction("question", chosen, asked_in, safe_answer(chosen["text_clean"])))
    return rows


def conversation(turns: pd.DataFrame) -> list[Message]:
    """Messages that end in the question of the last turn; the photograph is shown with the first."""
    asked = [safe_answer(aspect.removeprefix(QUESTION)) for aspect in turns["aspect"]]
    said = [safe_answer(text) for text in turns["text_clean"].iloc[:-1]]
    found = messages(asked[0])
    for answer, question in zip(said, asked[1:], strict=True):
        found += [{"role": "assistant", "content": answer}, {"role": "user", "content": question}]
    return found


def _records(told: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each record with its turns in their order."""
    place = told["comment_id"].str.extract(r"^(?P<record>.*)\.(?P<turn>\d+)$")
    ordered = told.assign(record=place["record"], turn=place["turn"].astype(int)).sort_values(["record", "turn"])
    for record, turns in ordered.groupby("record", sort=True):
        yield str(record), turns


def _drawn_share(rows: Sequence[Row], share: float, seed: int, name: str) -> list[Row]:
    """That share of the training rows, drawn by seed and a name of the draw."""
    train = [row for row in _ordered(rows) if row["split"] == "train"]
    keys = [derive(seed, name, row["dataset"], *row["item_ids"], row["answer"]) for row in train]
    order = sorted(range(len(train)), key=lambda number: (keys[number], number))
    return [train[number] for number in order[: round(share * len(train))]]


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """Independent of how the rows came about; training shuffles by seed and step."""
    return sorted(rows, key=lambda row: (row["dataset"], row["item_ids"], row["task"], row["answer"], row["origin"]))


def instruction(task: str, label: Label, messages: list[Message], answer: str) -> Row:
    """What a model is asked about one photograph and what it should say; `label` says which photograph, and whence."""
    return {
        "task": task,
        "dataset": label["dataset"],
        "item_ids": [label["item_id"]],
        "split": label["split"],
        "messages": messages,
        "answer": answer,
        "origin": label["origin"],
    }


def labels(
    layout: Layout,
    role: str,
    read: Callable[[Layout, str], pd.DataFrame],
    wanted: Callable[[pd.DataFrame], pd.Series],
) -> Iterator[pd.DataFrame]:
    """Of each dataset of a role: the wanted rows of a table, item by item of the role's list, with the item's split."""
    for dataset, listed in tables.role_list(layout, role).groupby("dataset", sort=True):
        table = read(layout, str(dataset))
        yield listed[["item_id", "split"]].merge(table[wanted(table)], on="item_id")
