"""Everything that was asked and answered, on disk before it is used: nothing that was paid for is asked twice.

One file of JSON lines for each endpoint, in `data/ledger/`: ignored by git, no output of a stage (DVC deletes those
before it runs), and never shortened.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from calm.writing import WritingError
from calm.writing.prices import Price
from calm.writing.requests import Answer, Request

Entry = dict[str, Any]


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
