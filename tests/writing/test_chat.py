"""Texts by chat completions, whatever the server does: the right texts or a clear error, nothing paid for twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from calm.data.store.tables import GUIDANCE, PROMPT, REJECTED_TEXT
from calm.io import read_table
from calm.layout import Layout
from calm.writing import WritingError
from calm.writing.ledger import ledger_name
from tests.writing.server import KEY, MODEL, FakeOpenAI

Run = Callable[..., Layout]


def once(kind: str, at: int = 3) -> Callable[[int, dict[str, Any]], str | None]:
    return lambda number, body: kind if number == at else None


def entries(layout: Layout, server: FakeOpenAI) -> list[dict[str, Any]]:
    path = layout.ledger / ledger_name(server.url)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def test_every_state_and_task_has_its_texts_with_a_record_of_who_wrote_them(run: Run, server: FakeOpenAI) -> None:
    layout = run(per_state=7, paraphrases=4)
    frame = read_table(layout.texts, GUIDANCE)
    assert (frame.groupby(["attribute", "state"]).text.nunique() == 7).all()
    assert len(frame) == 7 * 8
    assert set(frame["provider"]) == {f"openai@{server.url.removeprefix('http://')}"}
    assert set(frame["model"]) == {MODEL}
    keys = {entry["key"] for entry in entries(layout, server)}
    prompts = read_table(layout.prompts, PROMPT)
    assert set(frame["prompt_sha256"]) <= keys
    assert (prompts.groupby("task").prompt.nunique() == 4).all()
    assert set(prompts.groupby("task", sort=False).provider.first()) == {"calm"}


def test_concurrency_is_bounded_and_used(run: Run, server: FakeOpenAI) -> None:
    server.latency = 0.02
    run(delivery={"kind": "chat", "concurrency": 5})
    assert 1 < server.most_at_once <= 5


def test_a_finished_run_asks_nothing_and_needs_no_key(
    run: Run, server: FakeOpenAI, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run().texts.read_bytes()
    asked = len(server.received)
    layout.texts.unlink()
    monkeypatch.delenv("OPENAI_API_KEY")
    assert run().texts.read_bytes() == before
    assert len(server.received) == asked


@pytest.mark.parametrize("kind", ["500", "cut", "cut in the body", "not json", "html", "no choices"])
def test_a_request_that_fails_on_its_way_is_sent_again(run: Run, server: FakeOpenAI, tmp_path: Path, kind: str) -> None:
    server.fault = once(kind)
    disturbed = run()
    assert set(server.answered.values()) == {1}
    assert len(server.received) == len(server.answered) + 1
    server.fault = lambda number, body: None
    assert disturbed.texts.read_bytes() == run(tmp_path / "undisturbed").texts.read_bytes()


def test_retry_after_is_kept_to(run: Run, server: FakeOpenAI) -> None:
    server.fault = once("429", at=0)
    run(delivery={"kind": "chat", "concurrency": 1})
    assert server.received[0] == server.received[1]
    assert server.times[1] - server.times[0] >= 1.0
    assert len(server.received) == len(server.answered) + 1


def test_a_timeout_is_tried_again(run: Run, server: FakeOpenAI) -> None:
    server.fault = once("slow")
    run(timeout_seconds=1.0)
    assert set(server.answered.values()) == {1}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("429 for an hour", r"takes no more requests for now, and asks to wait 3600 s.*same command again"),
        ("500", r"failed in 2 tries.*same command again"),
        ("cut", r"cannot be reached, in 2 tries.*same command again"),
        ("slow", r"did not answer in time, in 2 tries"),
        ("html", r"2 responses in a row that are no chat completions.*base_url"),
        ("400", r"refused a request \(attributes\.texts\.writer\).*unknown parameter; your key is \[key\]"),
    ],
)
def test_what_never_works_ends_in_a_clear_error_and_keeps_the_answers(
    run: Run, server: FakeOpenAI, layout: Layout, kind: str, said: str
) -> None:
    server.fault = lambda number, body: kind if number >= 5 else None
    with pytest.raises(WritingError, match=said):
        run(retries=1, timeout_seconds=1.0, delivery={"kind": "chat", "concurrency": 2})
    assert len(entries(layout, server)) == 5
    assert not layout.texts.exists()
    server.fault = lambda number, body: None
    run(retries=1, timeout_seconds=1.0, delivery={"kind": "chat", "concurrency": 2})
    assert set(server.answered.values()) == {1}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("garbage", "answer is not the JSON asked for"),
        ("wrong_schema", "answer is not the JSON asked for"),
        ("blank", "empty answer"),
        ("refusal", "refusal"),
        ("filtered", "refusal"),
        ("cut_off", "answer cut off at max_tokens"),
        ("empty_text", "empty"),
    ],
)
def test_an_unusable_answer_is_kept_with_its_reason_and_asked_again(
    run: Run, server: FakeOpenAI, layout: Layout, kind: str, reason: str
) -> None:
    server.fault = once(kind)
    frame = read_table(run().texts, GUIDANCE)
    assert (frame.groupby(["attribute", "state"]).size() == 6).all()
    rejected = read_table(layout.rejected_texts, REJECTED_TEXT)
    assert reason in set(rejected["reason"])
    assert set(server.answered.values()) == {1}
    assert len(entries(layout, server)) == len(server.received)


def test_fewer_texts_than_asked_are_made_up_for(run: Run, server: FakeOpenAI) -> None:
    server.fault = lambda number, body: "fewer" if number < 10 else None
    assert (read_table(run().texts, GUIDANCE).groupby(["attribute", "state"]).size() == 6).all()


def test_json_in_a_code_fence_is_read(run: Run, server: FakeOpenAI, tmp_path: Path) -> None:
    server.fault = lambda number, body: "fenced"
    fenced = run()
    server.fault = lambda number, body: None
    assert fenced.texts.read_bytes() == run(tmp_path / "plain").texts.read_bytes()


def test_too_few_usable_texts_after_the_last_round_are_an_error_that_says_what_was_wrong(
    run: Run, server: FakeOpenAI, layout: Layout
) -> None:
    server.fault = lambda number, body: "refusal" if "State: underexposed" in body["messages"][1]["content"] else None
    with pytest.raises(WritingError, match=r"low/brightness/underexposed lacks 6 of 6 \(rejected: 6x refusal\)"):
        run(rounds=2)
    assert (read_table(layout.rejected_texts, REJECTED_TEXT)["reason"] == "refusal").sum() == 6
    server.fault = lambda number, body: None
    asked = len(server.received)
    run(rounds=3)
    anew = [body["messages"][1]["content"] for body in server.received[asked:]]
    assert sum("State: underexposed" in text for text in anew) == 3  # the third round, in three styles
    assert set(server.answered.values()) == {1}


def test_a_wrong_key_is_told_and_not_shown(
    run: Run, server: FakeOpenAI, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "sk-wrong-but-still-a-secret"
    monkeypatch.setenv("OPENAI_API_KEY", wrong)
    with pytest.raises(WritingError, match=r"refused the key in OPENAI_API_KEY.*\[key\]") as error:
        run()
    assert wrong not in repr(error.value) + repr(error.value.__cause__)
    assert entries(layout, server) == []


@pytest.mark.parametrize("value", [None, "", "  "])
def test_an_absent_key_is_told_before_anything_is_sent(
    run: Run, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY") if value is None else monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(WritingError, match="OPENAI_API_KEY is not set"):
        run()
    assert server.received == []


def test_a_key_that_is_no_header_is_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(WritingError, match="not shown here") as error:
        run()
    assert "sk-" not in str(error.value)


def test_a_key_that_the_server_sends_back_is_in_no_file(run: Run, server: FakeOpenAI, layout: Layout) -> None:
    server.fault = lambda number, body: "echo_key" if number < 8 else None
    run()
    files = [path for path in layout.root.rglob("*") if path.is_file()]
    assert len(files) == 6
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert not pd.concat([read_table(layout.rejected_texts, REJECTED_TEXT)["text"]]).str.contains(KEY).any()


def test_above_the_budget_nothing_is_sent(run: Run, server: FakeOpenAI) -> None:
    with pytest.raises(WritingError, match=r"no request is sent: up to \d+\.\d\d USD"):
        run(budget_usd=0.01)
    assert server.received == []


def test_what_was_spent_counts_against_the_budget(run: Run, server: FakeOpenAI) -> None:
    dear = {"input": 0.0, "output": 1000.0}
    run(price=dear, budget_usd=1000.0)
    asked = len(server.received)
    with pytest.raises(WritingError, match=r"in addition to the \d+\.\d\d USD that the ledger holds"):
        run(price=dear, budget_usd=2.0, per_state=9)
    assert len(server.received) == asked


def test_a_model_without_a_price_has_to_be_given_one(run: Run, server: FakeOpenAI) -> None:
    with pytest.raises(ValueError, match=r"attributes\.texts\.writer\.price: .* no price for 'my-model'"):
        run(model="my-model")
    run(model="my-model", price={"input": 0.0, "output": 0.0}, budget_usd=0.0)
    assert server.received[0]["model"] == "my-model"


def test_decoding_settings_reach_the_server(run: Run, server: FakeOpenAI) -> None:
    run(temperature=0.3, token_limit="max_completion_tokens", max_tokens=500, answer_format="json_schema")
    body = server.received[0]
    assert (body["temperature"], body["max_completion_tokens"]) == (0.3, 500)
    assert "max_tokens" not in body
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["texts"]
    assert len({json.dumps(body) for body in server.received}) == len(server.received)
