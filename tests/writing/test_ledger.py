"""The ledger keeps what it was told through crashes, and tells it again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from calm.attributes.taxonomy import Taxonomy
from calm.writing import WritingError
from calm.writing.ledger import Ledger, Price, ledger_name
from calm.writing.requests import Answer, Request, requests_of, state_topics
from tests.writing.conftest import settings

PRICE = Price(0.5, 1.5, "2026-06")
ANSWER = Answer('{"texts": ["Zu dunkel – 暗い"]}', None, "stop", "a-model")
USAGE = {"prompt_tokens": 1000, "completion_tokens": 2000}


@pytest.fixture
def requests(few: Taxonomy) -> list[Request]:
    writer = settings("http://localhost:1/v1")
    return [r for t in state_topics(few, 6) for style in t.styles for r in requests_of(t, style, 2, [], 0, writer)]


def test_answers_are_there_again_when_it_is_opened_again(tmp_path: Path, requests: list[Request]) -> None:
    path = tmp_path / "ledger" / "one.jsonl"
    with Ledger(path) as ledger:
        for request in requests[:5]:
            ledger.record_answer(request, ANSWER, USAGE, PRICE, 0.5, "chat")
    with Ledger(path) as ledger:
        assert ledger.answer(requests[0].key) == ANSWER
        assert ledger.unanswered(requests) == requests[5:]
        assert ledger.spent == pytest.approx(5 * (0.5e-3 + 3e-3))


def test_an_entry_says_what_was_asked_what_it_cost_and_how_long_it_took(
    tmp_path: Path, requests: list[Request]
) -> None:
    with Ledger(tmp_path / "one.jsonl", now=lambda: 12.0) as ledger:
        ledger.record_answer(requests[0], ANSWER, USAGE, PRICE, 0.5, "chat")
    entry = json.loads((tmp_path / "one.jsonl").read_text(encoding="utf-8"))
    assert entry["request"] == requests[0].body
    assert entry["template"] == "guidance-brightness-1"
    assert (entry["topic"], entry["via"]) == ("low/brightness/unchanged", "chat")
    assert (entry["usage"], entry["cost_usd"], entry["prices_of"]) == (USAGE, 0.0035, "2026-06")
    assert (entry["seconds"], entry["at"]) == (0.5, 12.0)


def test_an_answer_is_in_the_file_as_soon_as_it_is_recorded(tmp_path: Path, requests: list[Request]) -> None:
    with Ledger(tmp_path / "one.jsonl") as ledger:
        ledger.record_answer(requests[0], ANSWER, USAGE, PRICE, None, "batch")
        assert json.loads((tmp_path / "one.jsonl").read_bytes())["key"] == requests[0].key


def test_the_first_answer_to_a_request_stays(tmp_path: Path, requests: list[Request]) -> None:
    with Ledger(tmp_path / "one.jsonl") as ledger:
        ledger.record_answer(requests[0], ANSWER, USAGE, PRICE, None, "batch")
        ledger.record_answer(requests[0], Answer("{}", None, "stop", "b"), USAGE, PRICE, None, "batch")
        assert ledger.answer(requests[0].key) == ANSWER
    assert len((tmp_path / "one.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_cut_off_anywhere_it_keeps_all_whole_lines_and_goes_on(tmp_path: Path, requests: list[Request]) -> None:
    path = tmp_path / "one.jsonl"
    with Ledger(path) as ledger:
        for request in requests[:3]:
            ledger.record_answer(request, ANSWER, USAGE, PRICE, None, "chat")
    whole = path.read_bytes()
    ends = [position for position, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(ends[1] + 1, len(whole) - 1, 41):
        path.write_bytes(whole[:cut])
        with Ledger(path) as ledger:
            assert ledger.unanswered(requests[:4]) == requests[2:4]
            assert ledger.torn == (cut > ends[1] + 1)
            ledger.record_answer(requests[3], ANSWER, USAGE, PRICE, None, "chat")
        with Ledger(path) as ledger:
            assert ledger.unanswered(requests[:4]) == [requests[2]]


def test_two_runs_at_a_time_are_refused(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path / "one.jsonl"),
        pytest.raises(WritingError, match=r"one\.jsonl is open in another run"),
        Ledger(tmp_path / "one.jsonl"),
    ):
        pass
    with Ledger(tmp_path / "one.jsonl") as ledger:
        assert ledger.spent == 0


def test_every_line_is_flushed_to_the_disk(
    tmp_path: Path, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = threading.Event()
    monkeypatch.setattr("calm.writing.ledger.os.fsync", lambda file: flushed.set())
    with Ledger(tmp_path / "one.jsonl") as ledger:
        assert not flushed.is_set()
        ledger.record_answer(requests[0], ANSWER, USAGE, PRICE, None, "chat")
        assert flushed.wait(10)


def test_a_full_disk_is_told_by_the_files_name(
    tmp_path: Path, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with Ledger(tmp_path / "one.jsonl") as ledger:
        monkeypatch.setattr("calm.writing.ledger.os.write", full)
        with pytest.raises(WritingError, match=r"could not write .*one\.jsonl: No space left on device"):
            ledger.record_answer(requests[0], ANSWER, USAGE, PRICE, None, "chat")
        assert ledger.answer(requests[0].key) is None


def test_servers_have_ledgers_of_their_own() -> None:
    names = [
        ledger_name(f"{url}/v1") for url in ("https://api.openai.com", "http://localhost:8000", "http://localhost:80")
    ]
    assert names[0] == "api.openai.com_v1.jsonl"
    assert len(set(names)) == 3
