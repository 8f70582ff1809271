"""Instructions from questions and answers about photographs, for the variant of the paper with question-answer data.

In COMMENT, an answer has its question as aspect and RECORD.TURN as id (`calm.data.reading.conversations`), so that the
turns of a record are a conversation again. Of each record one turn, drawn by seed, is what the model has to answer; the
turns before it stand in the prompt with their answers.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from calm.data.store import tables
from calm.data.store.aspects import QUESTION, answers
from calm.instructions.rows import Row, instruction, labels
from calm.instructions.wording import Message, messages, safe_answer
from calm.layout import Layout
from calm.seeds import derive

TASK = "question"
MOST_TURNS = 4  # in the prompt, before the one to answer: the last ones


def question_rows(layout: Layout, role: str, seed: int) -> list[Row]:
    """One row of INSTRUCTION for each record about a listed item of the role."""
    rows = []
    for frame in labels(layout, role, tables.comments, answers):
        for record, turns in _records(frame):
            asked = derive(seed, TASK, turns["dataset"].iloc[0], record) % len(turns)
            chosen = turns.iloc[asked].to_dict()
            messages = conversation(turns.iloc[max(0, asked - MOST_TURNS) : asked + 1])
            rows.append(instruction(TASK, chosen, messages, safe_answer(chosen["text_clean"])))
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
