"""Everything that was asked and answered, on disk before it is used: nothing that was paid for is asked twice.

One file of JSON lines for each endpoint, in `data/ledger/`: ignored by git, no output of a stage (DVC deletes those
before it runs), and never shortened. What answers cost is told by a dated table, before anything is sent.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ruamel.yaml import YAML

from calm.settings import ParamsError
from calm.writing import WritingError
from calm.writing.checks import MOST_BYTES
from calm.writing.requests import Answer, Request
from calm.writing.settings import OpenAIWriter

TABLE = Path(__file__).parent / "prices.yaml"
_MILLION = 1e6
_FRAME_TOKENS = 16  # of a message beside its text: role, separators, the start of the answer
_MARK_BYTES = 10  # around each avoided text in a request, with its share of the heading
AVOIDED = 10  # texts that there are already, in a request for more of a style
_TEXT_TOKENS = 22  # of a text of this kind in JSON, as a rule: some sixteen words
Entry = dict[str, Any]


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens, and where the figures are from."""

    input: float
    output: float
    date: str

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / _MILLION


def price_of(writer: OpenAIWriter) -> Price:
    """The price of the writer's model: from params, else from the table, where a batch costs half.

    Raises:
        ParamsError: the table does not have the model.
    """
    if writer.price is not None:
        return Price(writer.price.input, writer.price.output, "params.yaml")
    table: dict[str, Any] = YAML(typ="safe").load(TABLE.read_text(encoding="utf-8"))
    found = table["models"].get(writer.model)
    if found is None:
        raise ParamsError(
            f"attributes.texts.writer.price: calm/writing/prices.yaml has no price for '{writer.model}'; say "
            "`price: {input: ..., output: ...}` in US dollars per million tokens (0 for a server of your own)"
        )
    factor = table["batch"] if writer.delivery.kind == "batch" else 1.0
    return Price(found["input"] * factor, found["output"] * factor, str(table["date"]))


def most_prompt_tokens(messages: list[dict[str, str]]) -> int:
    """A bound: no tokenizer in use makes more tokens of a text than it has bytes."""
    return sum(len(message["content"].encode("utf-8")) + _FRAME_TOKENS for message in messages)


def likely_prompt_tokens(messages: list[dict[str, str]]) -> int:
    """English has about four characters per token."""
    return sum(len(message["content"]) // 4 + _FRAME_TOKENS // 4 for message in messages)


@dataclass(frozen=True)
class Cost:
    """Tokens and US dollars of a set of requests: likely, and at most."""

    requests: int
    likely_prompt: int
    likely_answer: int
    likely_usd: float
    most_prompt: int
    most_answer: int
    most_usd: float


def cost_of(requests: Sequence[Request], writer: OpenAIWriter, price: Price) -> Cost:
    """Likely and highest cost. At most: a token for each byte sent, and every answer as long as it may be."""
    messages = [request.body["messages"] for request in requests]
    likely = sum(map(likely_prompt_tokens, messages)), sum(_TEXT_TOKENS * request.count for request in requests)
    most = sum(map(most_prompt_tokens, messages)), writer.max_tokens * len(requests)
    return Cost(len(requests), *likely, price.cost(*likely), *most, price.cost(*most))


def ceiling(first: Cost, writer: OpenAIWriter, price: Price) -> float:
    """US dollars at most, if every text of every round is rejected but for those that make the prompts longest."""
    listed = first.requests * AVOIDED * (MOST_BYTES + _MARK_BYTES)
    return first.most_usd + (writer.rounds - 1) * (first.most_usd + price.cost(listed, 0))


def within_budget(writer: OpenAIWriter, spent: float, most: float) -> None:
    """Refuse to send what could cost more than is left.

    Raises:
        WritingError: says what was spent, what could be spent, and the budget.
    """
    if spent + most > writer.budget_usd:
        raise WritingError(
            f"no request is sent: up to {most:.2f} USD in addition to the {spent:.2f} USD that the ledger holds "
            f"would be more than attributes.texts.writer.budget_usd ({writer.budget_usd:.2f}). "
            "`calm generate-texts --dry-run` lists requests, tokens and cost"
        )


def summary(
    writer: OpenAIWriter,
    price: Price,
    states: int,
    tasks: int,
    all_requests: Sequence[Request],
    left: Cost,
    spent: float,
) -> str:
    """What `--dry-run` prints."""
    most = ceiling(left, writer, price)
    verdict = "within the budget" if spent + most <= writer.budget_usd else "above the budget: nothing would be sent"
    texts = sum(request.count for request in all_requests)
    per_million = f"{price.input:g} and {price.output:g} USD per million tokens, {price.date}"
    rows = [
        ("model", f"{writer.model} at {writer.base_url}, {_delivery(writer)}"),
        ("wanted", f"{texts:,} texts for {states} states and {tasks} ways of asking"),
        ("requests", f"{len(all_requests):,}, of which the ledger answers {len(all_requests) - left.requests:,}"),
        ("tokens", f"about {left.likely_prompt:,} sent and {left.likely_answer:,} received"),
        ("at most", f"{left.most_prompt:,} sent and {left.most_answer:,} received, by the first round"),
        ("prices", per_million),
        ("cost", f"about {left.likely_usd:.2f} USD; ceiling {most:.2f} USD in {writer.rounds} rounds"),
        ("spent", f"{spent:.2f} USD"),
        ("budget", f"{writer.budget_usd:.2f} USD: {verdict}"),
    ]
    return "\n".join(f"{name:<9} {value}" for name, value in rows)


def _delivery(writer: OpenAIWriter) -> str:
    delivery = writer.delivery
    return f"{delivery.concurrency} requests at a time" if delivery.kind == "chat" else "in batches"


def ledger_name(endpoint: str) -> str:
    """File name for an endpoint: answers of one server are never taken for those of another."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", re.sub(r"^https?://", "", endpoint)).strip("_") + ".jsonl"


class Ledger:
    """An append-only file of answers and batches, replayed when it is opened.

    Each entry is one write, made at once; a thread flushes it to the disk. A line torn by a crash is passed over, and
    what it was about is asked again. Only one process at a time has a ledger open.

    Args:
        hide: removes the key from a line, should a server have sent it back.
        now: seconds since 1970, for the record alone.

    Raises:
        WritingError: another process has it open.
    """

    def __init__(
        self, path: Path, hide: Callable[[str], str] = lambda text: text, now: Callable[[], float] = time.time
    ) -> None:
        self.path, self._hide, self._now = path, hide, now
        self._answers: dict[str, Entry] = {}
        self.batches: dict[str, Entry] = {}
        self.torn = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise WritingError(
                f"{path} is open in another run of `calm generate-texts`: wait for it, or stop it"
            ) from None
        self._replay(path.read_bytes())
        self._dirty, self._closing = threading.Event(), False
        self._flusher = threading.Thread(target=self._flush_until_closed, name="ledger", daemon=True)
        self._flusher.start()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._dirty.set()
        self._flusher.join()
        os.fsync(self._file)
        os.close(self._file)

    def answer(self, key: str) -> Answer | None:
        """The recorded answer to a request, if there is one."""
        entry = self._answers.get(key)
        if entry is None:
            return None
        return Answer(**entry["answer"])

    def unanswered(self, requests: Iterable[Request]) -> list[Request]:
        """Those of the requests that no answer is recorded for, each once."""
        return list({r.key: r for r in requests if r.key not in self._answers}.values())

    @property
    def spent(self) -> float:
        """US dollars paid for all answers, by the prices of their days; answers without a price count as 0."""
        return sum(entry["cost_usd"] or 0.0 for entry in self._answers.values())

    def record_answer(
        self,
        request: Request | str,
        answer: Answer,
        usage: dict[str, int],
        price: Price,
        seconds: float | None,
        via: str,
    ) -> None:
        """Write down an answer; the first one to a request stays.

        Args:
            request: or its key alone, for a batch of a run with other settings: paid for, so kept.
            usage: `prompt_tokens` and `completion_tokens`, as far as the server tells.
            seconds: from sending to receiving; None for batches.
            via: "chat" or "batch".
        """
        asked: Entry = {"key": request}
        if isinstance(request, Request):
            asked = {
                "key": request.key,
                "topic": request.topic.path,
                "template": request.template,
                "request": request.body,
            }
        if asked["key"] in self._answers:
            return
        entry = {
            "kind": "answer",
            **asked,
            "answer": asdict(answer),
            "usage": usage,
            "cost_usd": price.cost(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)),
            "prices_of": price.date,
            "seconds": None if seconds is None else round(seconds, 3),
            "via": via,
        }
        self._append(entry)

    def record_batch(self, name: str, event: str, **details: Any) -> None:
        """Write down what happened to a batch: "planned", "created" (with its id), "collected"."""
        self._append({"kind": "batch", "name": name, "event": event, **details})

    def _append(self, entry: Entry) -> None:
        line = self._hide(json.dumps({**entry, "at": round(self._now(), 3)}, ensure_ascii=False, sort_keys=True))
        data = line.encode("utf-8", errors="surrogatepass") + b"\n"
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise WritingError(f"could not write {self.path}: {error.strerror}; what it holds is kept") from None
        self._dirty.set()
        self._take(json.loads(line))

    def _replay(self, data: bytes) -> None:
        lines = data.split(b"\n")
        if lines[-1]:
            os.write(self._file, b"\n")  # what was torn becomes a line of its own
        for line in filter(None, lines):
            try:
                self._take(json.loads(line.decode("utf-8", errors="surrogatepass")))
            except (ValueError, KeyError, TypeError):
                self.torn += 1

    def _take(self, entry: Entry) -> None:
        if entry["kind"] == "answer":
            entry["answer"]["content"], entry["cost_usd"]  # a line that lacks them is torn
            self._answers.setdefault(entry["key"], entry)
        else:
            self.batches[entry["name"]] = {**self.batches.get(entry["name"], {}), **entry}

    def _flush_until_closed(self) -> None:
        """A disk takes milliseconds to flush: one flush serves all that was written meanwhile."""
        while not self._closing:
            self._dirty.wait()
            self._dirty.clear()
            os.fsync(self._file)
