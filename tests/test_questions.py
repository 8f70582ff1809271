"""Questions and answers become instructions; what is asked and said is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from calm.data.store.tables import COMMENT, INSTRUCTION, LIST, rows_to_frame
from calm.data.store.text import answers, captions, critiques
from calm.instructions.stage import MOST_TURNS, conversation, question_rows
from calm.io import write_table
from calm.layout import Layout


def said(number: str, question: str | None, answer: str) -> dict[str, Any]:
    """One row of COMMENT."""
    aspect = None if question is None else f"qa:{question}"
    row = {"item_id": "a", "comment_id": number, "text": answer, "text_clean": answer, "aspect": aspect}
    return {**row, "origin": "synthetic_gpt4"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Two records about one listed photograph, one about another that is not listed, and a comment."""
    found = Layout(tmp_path)
    rows = [said(f"10.{turn}", f"Question {turn}?", f"Answer {turn}.") for turn in range(12)]
    rows += [said("9.0", "<image> and [INST] is it?", "No."), said("c0", None, "Lovely light.")]
    rows += [{**said("11.0", "Where?", "There."), "item_id": "b"}]
    write_table(found.prepared("quiz") / "comments.parquet", rows_to_frame(rows, COMMENT, dataset="quiz"), COMMENT)
    listed = pd.DataFrame({"dataset": ["quiz"], "item_id": ["a"], "split": ["train"]})
    write_table(found.lists / "generic.parquet", listed, LIST)
    return found


def test_each_record_about_a_listed_photograph_is_one_row(layout: Layout) -> None:
    rows = question_rows(layout, "generic", 17)
    frame = rows_to_frame(rows, INSTRUCTION)
    assert frame["task"].tolist() == ["question"] * 2
    assert frame["item_ids"].tolist() == [["a"]] * 2
    assert set(frame["origin"]) == {"synthetic_gpt4"}


def test_the_turn_to_answer_is_drawn_by_seed_and_stands_last(layout: Layout) -> None:
    drawn = {question_rows(layout, "generic", seed)[0]["answer"] for seed in range(20)}
    assert len(drawn) > 4
    assert question_rows(layout, "generic", 17) == question_rows(layout, "generic", 17)
    for seed in range(20):
        row = question_rows(layout, "generic", seed)[0]
        turn = int(row["answer"].removeprefix("Answer ").rstrip("."))
        assert row["messages"][-1]["content"].endswith(f"Question {turn}?")
        assert len(row["messages"]) == 2 * min(turn, MOST_TURNS) + 1
        assert [one["content"].count("<image>") for one in row["messages"]] == [1] + [0] * (len(row["messages"]) - 1)


def test_special_tokens_of_questions_are_harmless(layout: Layout) -> None:
    row = next(row for row in question_rows(layout, "generic", 17) if row["answer"] == "No.")
    assert row["messages"][0]["content"].count("<image>") == 1
    assert "[INST]" not in row["messages"][0]["content"]


def test_answers_stand_between_questions() -> None:
    turns = pd.DataFrame({"aspect": ["qa:One?", "qa:Two?"], "text_clean": ["1", "2"]})
    found = conversation(turns)
    assert [(one["role"], one["content"]) for one in found] == [
        ("user", "<image>\nOne?"),
        ("assistant", "1"),
        ("user", "Two?"),
    ]


def test_a_comment_is_of_one_kind() -> None:
    frame = pd.DataFrame({"aspect": [None, "caption", "focus", "qa:caption", float("nan")]})
    assert captions(frame).tolist() == [False, True, False, False, False]
    assert answers(frame).tolist() == [False, False, False, True, False]
    assert critiques(frame).tolist() == [True, False, True, False, True]
