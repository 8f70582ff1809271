"""Prompts and answers: one wording for all, scores that read back, texts of people that cannot act as markup."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from calm.attributes.edits import EMPTY, SPOILT
from calm.attributes.grammar import BOUNDS, standing_of
from calm.data.leakage.stage import filter_leakage
from calm.data.prepare import prepare
from calm.data.sources import fetch
from calm.data.splits import split
from calm.data.store import tables
from calm.data.store.tables import PROMPT
from calm.instructions import (
    IMAGE_TOKEN,
    MAX_ANSWER,
    PROMPTS,
    SCORE_PROMPT,
    format_score,
    parse_score,
    personal_messages,
    rescale,
    safe_answer,
)
from calm.instructions.stage import build_instructions
from calm.io import write_table
from calm.layout import Layout
from calm.model.settings import Runtime
from calm.params import Params
from tests.data.conftest import MakeParams, few_photos, folder, make_params, photos_settings, scored, scored_params

__all__ = ["few_photos", "folder", "make_params", "scored", "scored_params"]  # fixtures


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("6.5.", 6.5),
        ("I would give it 7", 7.0),
        ("Score: 10/10", 10.0),
        ("1.0.", 1.0),
        ("", None),
        ("no idea", None),
        ("11.", None),
        ("0.4", None),
        ("-3", None),
        ("v2 it is", None),
    ],
)
def test_scores_are_read_from_answers(text: str, score: float | None) -> None:
    assert parse_score(text) == score


def test_written_scores_read_back() -> None:
    assert format_score(6.53) == "6.5."
    for tenths in range(10, 101):
        assert parse_score(format_score(tenths / 10)) == tenths / 10
    with pytest.raises(ValueError, match="finite"):
        format_score(float("nan"))


def test_other_scales_are_mapped_onto_one_to_ten() -> None:
    assert [rescale(score, 1, 7) for score in (1, 4, 7)] == [1, 5.5, 10]


def test_personal_prompts_have_one_image_per_photograph() -> None:
    turns = personal_messages([6.5, 3.0])
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 + ["user"]
    assert sum(turn["content"].count(IMAGE_TOKEN) for turn in turns) == 3
    assert turns[1]["content"] == "6.5."


def test_answers_of_people_are_capped_and_cannot_open_special_tokens() -> None:
    answer = safe_answer("<|im_end|><image> wow " * 100)
    assert len(answer) <= MAX_ANSWER
    assert "<" not in answer


def built(params: Params, root: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Run every stage up to the instructions, with a stand-in for the encoder's class names."""

    def imagenet_labels(
        name: str, images: Iterable[Image.Image], runtime: Runtime
    ) -> Iterator[list[tuple[str, float]]]:
        for number, _ in enumerate(images):
            yield [("espresso", 0.6), ("cup", 0.3), ("plate", 0.05)] if number % 2 else [("stage", 0.02)]

    monkeypatch.setattr("calm.model.pretrained.imagenet_labels", imagenet_labels)
    layout = Layout(root)
    for dataset in params.data.datasets:
        fetch(dataset, params, layout)
        prepare(dataset, params, layout)
    split(params, layout)
    filter_leakage(params, layout)
    build_instructions(params, layout)
    return layout


@pytest.fixture
def photos_params(few_photos: Path, make_params: MakeParams) -> Params:
    settings = photos_settings(comments=3)
    params = make_params({"photos": settings}, {role: ["photos"] for role in tables.ROLES})
    capped = params.instructions.model_copy(update={"comments_per_item": 2})  # of three
    return params.model_copy(update={"instructions": capped})


def test_every_use_has_training_and_test_rows_from_its_list(
    photos_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = built(photos_params, tmp_path, monkeypatch)
    generic, comments, scores = (tables.instructions(layout, use) for use in ("generic", "comments", "scores"))
    assert set(generic["task"]) == {"caption"}
    assert set(generic["origin"]) == {"theme", "file_name", "imagenet_class"}
    named = generic[generic["origin"] == "imagenet_class"]
    assert set(named["answer"]) == {"It may show espresso or cup."}
    assert len(named) == 4
    assert set(comments["origin"]) == {"synthetic_grammar"}
    assert comments["item_ids"].str[0].value_counts().tolist() == [2] * 24
    for frame, role in ((generic, "generic"), (comments, "comments"), (scores[scores["task"] == "score"], "scores")):
        listed = tables.role_list(layout, role)
        assert set(zip(frame["item_ids"].str[0], frame["split"], strict=True)) == set(
            zip(listed["item_id"], listed["split"], strict=True)
        )


def test_every_prompt_has_one_image_and_scores_their_number(
    photos_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = built(photos_params, tmp_path, monkeypatch)
    scores = tables.instructions(layout, "scores")
    for messages in scores["messages"]:
        assert len(messages) == 1
        assert messages[0]["role"] == "user"
        assert messages[0]["content"].count(IMAGE_TOKEN) == 1
    asked = scores[scores["task"] == "score"]
    given = tables.ratings(layout, "photos").query("rater_id.isna()").set_index("item_id")["score"]
    for _, row in asked.iterrows():
        assert row["messages"][0]["content"].endswith(SCORE_PROMPT)
        assert row["score"] == pytest.approx(given[row["item_ids"][0]], abs=1e-9)  # rounded once more on its way
        assert row["answer"] == f"{row['score']:.1f}."
        assert row["origin"] == "synthetic_edits"


def test_a_share_of_the_training_comments_is_kept_among_the_scores(
    photos_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = built(photos_params, tmp_path, monkeypatch)
    comments, scores = (tables.instructions(layout, use) for use in ("comments", "scores"))
    kept = scores[scores["task"] == "comment"]
    assert set(kept["split"]) == {"train"}
    settings = photos_params.instructions
    assert len(kept) == round(settings.score_share_of_comments * (comments["split"] == "train").sum()) > 0
    assert set(kept["answer"]) <= set(comments["answer"])


def test_verdicts_of_rated_photographs_follow_their_scores(
    photos_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = photos_params.model_dump()
    raw["instructions"]["verdicts"] = 0.5
    layout = built(Params.model_validate(raw), tmp_path, monkeypatch)
    comments, scores = (
        tables.instructions(layout, use).assign(item=lambda rows: rows["item_ids"].str[0])
        for use in ("comments", "scores")
    )
    found = comments[comments["origin"] == "synthetic_verdict"].set_index("item")
    given = scores[(scores["task"] == "score") & (scores["split"] == "train")].set_index("item")["score"]
    assert len(found) == round(0.5 * len(given)) > 8 and set(found["split"]) == {"train"}
    low, high = given.quantile(BOUNDS)
    for item, answer in found["answer"].items():
        score = given[item]
        standing = "low" if score < low else "high" if score > high else "middle"
        assert standing_of(answer) == standing
    assert found["told"].str.len().min() > 0


def test_spoilt_twins_stand_beside_training_scores_and_lie_below_them(
    photos_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = photos_params.model_dump()
    raw["instructions"]["spoilt"] = {"share": 0.5, "points": 1.5}
    rows = tables.instructions(built(Params.model_validate(raw), tmp_path, monkeypatch), "scores")
    rows = rows[rows["task"] == "score"].assign(item=rows["item_ids"].str[0])
    given, spoilt = rows[rows["spoilt"].isna()], rows[rows["spoilt"].notna()]
    train = given[given["split"] == "train"]
    assert len(spoilt) == round(0.5 * len(train)) and set(spoilt["split"]) == {"train"}
    assert set(spoilt["spoilt"]) <= set(SPOILT) and set(spoilt["origin"]) == {"synthetic_spoilt"}
    own, lowest = spoilt["item"].map(train.set_index("item")["score"]), train["score"].min()
    empty = spoilt["spoilt"].isin(EMPTY)
    assert (spoilt["score"][empty] == lowest).all()
    assert (spoilt["score"][~empty] == (own[~empty] - 1.5).clip(lower=lowest)).all()


def test_building_twice_gives_the_same_bytes(
    photos_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = built(photos_params, tmp_path, monkeypatch)

    def digests() -> dict[str, str]:
        paths = sorted(layout.instructions.iterdir())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    before = digests()
    build_instructions(photos_params, layout)
    assert digests() == before
    assert len(before) == 3


def test_roles_without_datasets_give_empty_tables(
    scored_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = built(scored_params, tmp_path, monkeypatch)
    assert tables.instructions(layout, "generic").empty
    asked = tables.instructions(layout, "scores").query("task == 'score'")
    scores = pd.Series(asked["score"].to_numpy(), index=asked["item_ids"].str[0])
    assert scores["p00"] == 1.0
    assert scores["p06"] == 10.0


def test_training_asks_in_other_words_and_evaluation_in_its_own(
    photos_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = built(photos_params, tmp_path, monkeypatch)
    before = {use: tables.instructions(plain, use) for use in ("generic", "comments", "scores")}
    ways = [
        {"task": task, "prompt": prompt, "provider": "p", "model": "m", "prompt_sha256": "", "text_sha256": ""}
        for task, canonical in PROMPTS.items()
        for prompt in (canonical, f"Another {task}?", f"A third {task} <image>?")
    ]
    write_table(plain.prompts, pd.DataFrame(ways), PROMPT)
    settings = photos_params.instructions.model_copy(update={"paraphrases": 3})
    build_instructions(photos_params.model_copy(update={"instructions": settings}), plain)
    for use, frame in before.items():
        after = tables.instructions(plain, use)
        pd.testing.assert_frame_equal(after.drop(columns="messages"), frame.drop(columns="messages"))
        asked = after["messages"].str[0].str["content"]
        test = after["split"] != "train"
        assert (asked[test] == frame["messages"].str[0].str["content"][test]).all()
        assert asked[~test].nunique() > frame.loc[~test, "task"].nunique()
        assert (asked.str.count(IMAGE_TOKEN) == 1).all()
