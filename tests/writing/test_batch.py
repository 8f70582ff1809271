"""Texts by the Batch API: a batch that was created is collected, however it and the run end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from calm.data.store.tables import GUIDANCE
from calm.io import read_table
from calm.layout import Layout
from calm.writing import WritingError, batch
from calm.writing.ledger import Ledger, ledger_name
from tests.writing.conftest import BATCH
from tests.writing.server import BatchPlan, FakeOpenAI

Run = Callable[..., Layout]


def complete(layout: Layout) -> bool:
    return bool((read_table(layout.texts, GUIDANCE).groupby(["attribute", "state"]).size() == 6).all())


def test_batches_give_the_texts_that_chat_gives_at_half_the_price(run: Run, server: FakeOpenAI, tmp_path: Path) -> None:
    by_batch, by_chat = run(tmp_path / "batch", delivery=BATCH), run(tmp_path / "chat")
    assert by_batch.texts.read_bytes() == by_chat.texts.read_bytes()
    assert by_batch.prompts.read_bytes() == by_chat.prompts.read_bytes()
    spent = []
    for layout in (by_batch, by_chat):
        with Ledger(layout.ledger / ledger_name(server.url)) as ledger:
            spent.append(ledger.spent)
    assert spent[0] == pytest.approx(spent[1] / 2)
    assert spent[0] > 0


def test_a_batch_that_is_pending_when_the_run_ends_is_collected_by_the_next(
    run: Run, server: FakeOpenAI, layout: Layout
) -> None:
    server.plan = lambda number: BatchPlan(polls=None)
    with pytest.raises(WritingError, match=r"batch_0 is still 'in_progress' after .* h .*collects it later"):
        run(delivery={**BATCH, "wait_hours": 1e-5})
    server.batches["batch_0"]["_plan"] = BatchPlan(polls=0)
    server.plan = lambda number: BatchPlan()
    assert complete(run(delivery=BATCH))
    assert set(server.batched.values()) == {1}


def test_answers_of_a_pending_batch_that_are_not_wanted_any_more_are_kept(run: Run, server: FakeOpenAI) -> None:
    server.plan = lambda number: BatchPlan(polls=None)
    with pytest.raises(WritingError, match="collects it later"):
        run(paraphrases=5, delivery={**BATCH, "wait_hours": 1e-5})
    server.batches["batch_0"]["_plan"] = BatchPlan(polls=0)
    server.plan = lambda number: BatchPlan()
    run(paraphrases=3, delivery=BATCH)
    run(paraphrases=5, delivery=BATCH)
    assert set(server.batched.values()) == {1}


@pytest.mark.parametrize("status", ["expired", "cancelled", "completed"])
def test_what_a_batch_leaves_unanswered_goes_into_another(run: Run, server: FakeOpenAI, status: str) -> None:
    server.plan = lambda number: BatchPlan(status=status, answered=0.5, errors=True) if number == 0 else BatchPlan()
    assert complete(run(delivery=BATCH))
    assert set(server.answered.values()) == {1}
    assert set(server.batched.values()) == {1, 2}


def test_a_batch_that_is_not_accepted_is_told_with_the_servers_reason(run: Run, server: FakeOpenAI) -> None:
    server.plan = lambda number: BatchPlan(status="failed")
    with pytest.raises(WritingError, match="did not accept batch batch_0: line 1 is not valid"):
        run(delivery=BATCH)
    server.plan = lambda number: BatchPlan()
    assert complete(run(delivery=BATCH))


def test_batches_that_never_answer_end_in_an_error(run: Run, server: FakeOpenAI) -> None:
    server.plan = lambda number: BatchPlan(status="expired", answered=0.0)
    with pytest.raises(WritingError, match=r"\d+ requests have no answer after 3 batches"):
        run(delivery=BATCH)
    assert len(server.batches) == 3


@pytest.mark.parametrize("what", ["duplicated", "missing", "unknown", "torn", "shuffled", "no id"])
def test_lines_that_are_repeated_lost_or_strange_change_no_text(
    run: Run, server: FakeOpenAI, tmp_path: Path, what: str
) -> None:
    def spoilt(lines: list[str]) -> list[str]:
        other = json.dumps({**json.loads(lines[1]), "custom_id": json.loads(lines[0])["custom_id"]})
        return {
            "duplicated": [*lines, other],  # the first line counts
            "missing": lines[3:],
            "unknown": [other.replace('"custom_id": "', '"custom_id": "not'), *lines],
            "torn": [*lines[:-1], lines[-1][:50]],
            "shuffled": lines[::-1],
            "no id": ["{}", "[]", "null", "7", *lines],
        }[what]

    server.plan = lambda number: BatchPlan(lines=spoilt) if number == 0 else BatchPlan()
    spoiled = run(delivery=BATCH)
    server.plan = lambda number: BatchPlan()
    assert spoiled.texts.read_bytes() == run(tmp_path / "plain", delivery=BATCH).texts.read_bytes()


def test_a_batch_whose_creation_was_not_heard_of_is_found_and_not_created_again(run: Run, server: FakeOpenAI) -> None:
    server.plan = lambda number: BatchPlan(lose_creation=number == 0)
    assert complete(run(delivery=BATCH))
    assert set(server.batched.values()) == {1}


@pytest.mark.parametrize("created", [True, False], ids=["created, not heard of", "planned alone"])
def test_a_run_that_died_finds_its_batch_or_creates_it(
    created: bool, run: Run, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Died

    real = Ledger.record_batch

    def record(self: Ledger, name: str, event: str, **more: object) -> None:
        (die if event == "created" else real)(self, name, event, **more)

    with monkeypatch.context() as patch:
        if created:
            patch.setattr(Ledger, "record_batch", record)
        else:
            patch.setattr(batch._Batches, "_created", die)
        with pytest.raises(Died):
            run(delivery=BATCH)
    assert len(server.batches) == created
    assert complete(run(delivery=BATCH))
    assert set(server.batched.values()) == {1}


def test_large_sets_are_split(run: Run, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "LARGEST", 10)
    assert complete(run(delivery=BATCH))
    assert len(server.batches) > 3
    assert set(server.batched.values()) == {1}


def test_a_wrong_key_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with pytest.raises(WritingError, match=r"refused the key in OPENAI_API_KEY.*\[key\]"):
        run(delivery=BATCH)
