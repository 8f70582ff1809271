"""kill -9 at any moment, then the same command: the same files, and nothing asked twice that had been answered."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.layout import Layout
from calm.writing.ledger import ledger_name
from calm.writing.stage import generate_texts
from tests import forked
from tests.writing.conftest import BATCH, FEW, embed, writer_params
from tests.writing.server import BatchPlan, FakeOpenAI

OUTPUTS = ("texts", "prompts", "rejected_texts", "text_gate", "text_confusion")
AT_ONCE = 4
CHATTING = {"kind": "chat", "concurrency": AT_ONCE}


def write(url: str, root: Path, kind: str) -> None:
    """The stage, for a process of its own."""
    few = Taxonomy(tuple(one for one in taxonomy().attributes if one.name in FEW))
    generate_texts(writer_params(url, delivery=BATCH if kind == "batch" else CHATTING), Layout(root), embed, few)


class Killer:
    """Runs the stage in a process and kills it at the moments that the server is told."""

    def __init__(self, server: FakeOpenAI, root: Path) -> None:
        self.server, self.root = server, root
        self.process: BaseProcess | None = None
        self.seen = 0
        self.armed: tuple[str, str, int] | None = None
        self.signal = signal.SIGKILL
        server.moment = self._moment

    def _moment(self, when: str, path: str) -> None:
        if self.armed is None or self.process is None:
            return
        wanted, start, count = self.armed
        if when == wanted and path.startswith(start):
            self.seen += 1
            if self.seen == count:
                assert self.process.pid is not None
                os.kill(self.process.pid, self.signal)
                if self.signal == signal.SIGKILL:
                    wait([self.process.sentinel])

    def run(self, kind: str, at: tuple[str, str, int] | None) -> int | None:
        """Start it, and kill it at the `at[2]`-th request that begins with `at[1]`; its exit code."""
        self.armed, self.seen = at, 0
        self.process = forked.start(write, self.server.url, self.root, kind)
        self.process.join()
        return self.process.exitcode

    def recorded(self) -> set[str]:
        path = Layout(self.root).ledger / ledger_name(self.server.url)
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return {entry["key"] for entry in map(json.loads, lines) if entry["kind"] == "answer"}


def outputs(root: Path) -> dict[str, bytes]:
    return {name: getattr(Layout(root), name).read_bytes() for name in OUTPUTS}


CHAT = [("before", "POST /chat", 1), ("before", "POST /chat", 6), ("after", "POST /chat", 9)]
BATCHES = [
    ("before", "POST /files", 1),
    ("before", "POST /batches", 1),
    ("after", "POST /batches", 1),
    ("before", "GET /batches/", 2),
    ("after", "GET /files", 1),
]


@pytest.mark.parametrize(("kind", "moments"), [("chat", CHAT), ("batch", BATCHES)])
def test_a_run_that_was_killed_again_and_again_ends_like_one_that_was_not(
    server: FakeOpenAI, tmp_path: Path, run: Callable[..., Layout], kind: str, moments: list[tuple[str, str, int]]
) -> None:
    if kind == "chat":  # refusals by the request's bytes: later rounds depend on what the ledger says of earlier ones
        server.fault = lambda number, body: "refusal" if body["seed"] % 5 == 0 else None
    server.plan = lambda number: BatchPlan(polls=2)
    killer = Killer(server, tmp_path / "killed")
    recorded: set[str] = set()
    for moment in moments:
        assert killer.run(kind, moment) == -9
        before = dict(server.answered) | dict(server.batched)
        assert recorded <= killer.recorded()
        recorded = killer.recorded()
        counts = {key: before[key] for key in recorded}
    assert killer.run(kind, None) == 0
    after = dict(server.answered) | dict(server.batched)
    assert {key: after[key] for key in counts} == counts
    if kind == "chat":
        # Only what was under way in the instant of a kill can have been answered without being heard.
        repeated = sum(count - 1 for count in server.answered.values())
        assert repeated <= AT_ONCE * len(moments)
    else:
        assert set(server.batched.values()) == {1}
    server.moment = lambda when, path: None
    assert outputs(tmp_path / "killed") == outputs(run(tmp_path / "whole", delivery=CHATTING).root)


def test_ctrl_c_waits_for_the_answers_that_are_under_way(server: FakeOpenAI, tmp_path: Path) -> None:
    server.latency = 0.2
    killer = Killer(server, tmp_path / "stopped")
    killer.signal = signal.SIGINT
    assert killer.run("chat", ("before", "POST /chat", 6)) != 0
    assert len(server.answered) >= 6
    assert killer.recorded() == set(server.answered)
    assert not Layout(tmp_path / "stopped").texts.exists()
