"""Prompts come from versioned files; the key of a request is all of what is asked; answers are read by a schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calm.attributes.taxonomy import taxonomy
from calm.settings import ParamsError
from calm.writing import requests as module
from calm.writing.requests import (
    STYLES,
    TEMPLATES,
    Answer,
    Topic,
    hand_written,
    read_answer,
    render,
    requests_of,
    state_topics,
    task_topics,
    version_of,
)
from tests.writing.conftest import settings, writer_params

URL = "http://localhost:1/v1"
STATES = state_topics(taxonomy(), 50)
DARK = next(topic for topic in STATES if topic.name == "underexposed")


def user(topic: Topic, style: str = "label", avoid: tuple[str, ...] = ()) -> str:
    return render(topic, style, 5, avoid, 40)[1][1]["content"]


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.j2")), ids=lambda path: path.name)
def test_every_template_states_its_version(path: Path) -> None:
    name = path.relative_to(TEMPLATES).as_posix()
    assert version_of(name).startswith(name.removesuffix(".j2").replace("/", "-") + "-")


def test_a_prompt_says_level_attribute_state_style_number_and_what_is_meant() -> None:
    text = user(DARK)
    for part in ("Level: low", "Attribute: brightness", "State: underexposed", "Write 5 distinct", "a terse label"):
        assert part in text
    assert all(word in text for word in (*DARK.words, *DARK.remedies))
    assert "{" not in text


def test_a_good_state_is_praised_and_texts_there_are_not_to_be_repeated() -> None:
    good = next(topic for topic in STATES if topic.name == "unchanged")
    assert "Nothing has to be corrected" in user(good)
    assert "- Lovely light." in user(good, avoid=("Lovely light.",))


def test_an_attribute_with_a_template_of_its_own_is_asked_for_by_that() -> None:
    assert render(DARK, "label", 5, (), 40)[0] == "guidance-brightness-1"
    noise = next(topic for topic in STATES if topic.family == "noise")
    assert render(noise, "label", 5, (), 40)[0] == "guidance-1"
    assert "error of exposure" in user(DARK)


def test_own_templates_belong_to_attributes_that_exist() -> None:
    names = {path.stem for path in (TEMPLATES / "guidance").glob("*.j2")}
    assert names <= {attribute.name for attribute in taxonomy().attributes}


def test_texts_are_shared_out_among_styles_and_requests() -> None:
    assert DARK.shares() == {"photographer": 17, "label": 17, "beginner": 16}
    writer = settings(URL, texts_per_request=10)
    assert [request.count for request in requests_of(DARK, "label", 17, [], 0, writer)] == [10, 7]
    assert requests_of(DARK, "label", 0, [], 0, writer) == []


def test_the_key_depends_on_everything_that_is_asked_and_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(style: str = "label", round_: int = 0, **changes: object) -> str:
        return requests_of(DARK, style, 3, [], round_, settings(URL, **changes))[0].key  # type: ignore[arg-type]

    plain = key()
    assert key() == plain
    for changes in (
        {"model": "gpt-4o"},
        {"temperature": 0.1},
        {"seed": 3},
        {"max_tokens": 9},
        {"answer_format": "text"},
    ):
        assert key(**changes) != plain
    assert key(style="beginner") != plain
    assert key(round_=1) != plain
    for changes in ({"retries": 1}, {"budget_usd": 7.0}, {"delivery": {"kind": "chat", "concurrency": 1}}):
        assert key(**changes) == plain
    monkeypatch.setattr(module, "version_of", lambda name: "guidance-brightness-2")
    assert key() != plain


def test_ways_of_asking_are_asked_for_and_the_grammar_has_some() -> None:
    for topic in task_topics(10):
        assert topic.words[0] in user(topic, "question")
        assert len(hand_written(topic.name)) >= 19
        assert topic.words[0] not in hand_written(topic.name)
    assert set(STYLES) == {"photographer", "label", "beginner"}


def answer(content: str | None, refusal: str | None = None, finish: str = "stop") -> Answer:
    return Answer(content, refusal, finish, "m")


def test_answers_are_read_by_their_schema() -> None:
    good = json.dumps({"texts": ["a", "b", "c"]})
    assert read_answer(answer(good), 2) == (["a", "b"], None)
    assert read_answer(answer(f"```json\n{good}\n```"), 3)[0] == ["a", "b", "c"]
    for content in ("[]", "{}", '{"texts": "a"}', '{"texts": [1]}', '{"texts": ["a"], "more": 1}', "null", "a"):
        assert read_answer(answer(content), 2) == ([], "answer is not the JSON asked for")
    assert read_answer(answer(None, "no"), 2) == ([], "refusal")


@pytest.mark.parametrize(
    "url", ["ftp://host/v1", "http://", "http://user:secret@host/v1", "http://host/v1?key=secret", "nothing"]
)
def test_an_address_with_a_key_in_it_or_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(ParamsError, match=r"attributes\.texts\.writer\.base_url") as error:
        writer_params(url)
    assert "secret" not in str(error.value)
