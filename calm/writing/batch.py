"""The Batch API: upload, create, poll, collect. What was created is never created twice.

A batch is planned in the ledger before it is created, and carries the plan's name as metadata. So whatever moment a
run is stopped at, the next one finds the batch again: by its id, or by asking the server for that name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from calm.io import sha256_text
from calm.writing import WritingError
from calm.writing.chat import KEPT, Key, Unreadable, explained, read_completion, service
from calm.writing.ledger import Ledger, Price
from calm.writing.requests import Request
from calm.writing.settings import BatchDelivery, OpenAIWriter

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

LARGEST = 50_000  # requests in one batch, by OpenAI's rules
MOST_BYTES = 100_000_000  # half of what its rules allow
TRIES = 3  # batches that one request may be part of
_MARK = "calm"  # name of the metadata
_PENDING = {"validating", "in_progress", "finalizing", "cancelling"}
_OK = 200


def ask(requests: Sequence[Request], writer: OpenAIWriter, key: Key, price: Price, ledger: Ledger) -> None:
    """Send requests as batches and write every answer into the ledger. Requests that a batch loses get another one.

    Raises:
        WritingError: a batch does not end within `wait_hours` (it is collected by the next run), requests have no
            answer after three batches, or the key or a request is refused.
    """
    import openai

    with openai.OpenAI(**service(writer, key)) as client:
        try:
            _Batches(client, writer, key, price, ledger).all(requests)
        except openai.OpenAIError as error:
            raise explained(error, writer, key) from None


class _Batches:
    def __init__(self, client: OpenAI, writer: OpenAIWriter, key: Key, price: Price, ledger: Ledger) -> None:
        assert isinstance(writer.delivery, BatchDelivery)
        self.client, self.writer, self.key, self.price, self.ledger = client, writer, key, price, ledger
        self.delivery = writer.delivery

    def all(self, requests: Sequence[Request]) -> None:
        by_key = {request.key: request for request in requests}
        for name, entry in list(self.ledger.batches.items()):  # of a run that was stopped
            if entry["event"] != "collected" and by_key.keys() & set(entry["keys"]):
                self._finish(name, by_key)
        for _ in range(TRIES):
            missing = self.ledger.unanswered(requests)
            for part in _parts(missing):
                self._finish(self._plan(part), by_key)
            if not self.ledger.unanswered(requests):
                return
        lost = len(self.ledger.unanswered(requests))
        raise WritingError(
            f"{lost} requests have no answer after {TRIES} batches ({self.writer.base_url}). {KEPT}, "
            "or set attributes.texts.writer.delivery to {kind: chat}"
        )

    def _plan(self, requests: Sequence[Request]) -> str:
        """Write down what the next batch will hold, before anything is sent."""
        keys = [request.key for request in requests]
        name = sha256_text(" ".join([str(len(self.ledger.batches)), *keys]))[:32]
        self.ledger.record_batch(name, "planned", keys=keys)
        return name

    def _finish(self, name: str, requests: dict[str, Request]) -> None:
        """Take a planned batch to its end and collect it."""
        entry = self.ledger.batches[name]
        batch_id = entry.get("id") or self._found(name) or self._created(name, requests, entry["keys"])
        if batch_id is None:
            return
        if not entry.get("id"):
            self.ledger.record_batch(name, "created", id=batch_id)
        batch = self._ended(batch_id)
        refused: list[str] = []  # errors that the same request would meet again
        for file in (batch.output_file_id, batch.error_file_id):
            if file:
                text = self.client.files.content(file).text
                refused += self._collect(text, {key: requests.get(key, key) for key in entry["keys"]})
        self.ledger.record_batch(name, "collected", status=batch.status)
        if batch.status == "failed":  # its input was not accepted: no request of it was answered
            problems = [error.message or "" for error in (batch.errors.data or [])] if batch.errors else []
            said = self.key.hide("; ".join(problems[:3])) or "no reason given"
            raise WritingError(f"{self.writer.base_url} did not accept batch {batch_id}: {said}")
        if refused:
            raise WritingError(f"{self.writer.base_url} refused requests of batch {batch_id}: {refused[0]}")

    def _found(self, name: str) -> str | None:
        """The id of the batch with that name, if it was created and the answer to that never arrived."""
        for batch in self.client.batches.list(limit=100):
            if (batch.metadata or {}).get(_MARK) == name:
                return batch.id
        return None

    def _created(self, name: str, requests: dict[str, Request], keys: Sequence[str]) -> str | None:
        """Upload and create; None if nothing of the plan is wanted any more."""
        import openai

        wanted = [requests[key] for key in keys if key in requests and self.ledger.answer(key) is None]
        if not wanted:
            self.ledger.record_batch(name, "collected", status="never created")
            return None
        data = "".join(_line(request) + "\n" for request in wanted).encode()
        uploaded = self.client.files.create(file=(f"{name}.jsonl", data), purpose="batch")
        # The client's own retries could create a second batch: look for the first one instead.
        once = self.client.with_options(max_retries=0)
        for attempt in range(self.writer.retries + 1):
            try:
                made = once.batches.create(
                    input_file_id=uploaded.id,
                    endpoint="/v1/chat/completions",
                    completion_window="24h",
                    metadata={_MARK: name},
                )
                return made.id
            except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError) as error:
                found = self._found(name)
                if found:
                    return found
                if attempt == self.writer.retries:
                    raise
                time.sleep(_pause(error, attempt))
        raise AssertionError("unreachable")

    def _ended(self, batch_id: str) -> Batch:
        """Wait until a batch has ended, well or not."""
        deadline = time.monotonic() + self.delivery.wait_hours * 3600
        while True:
            batch = self.client.batches.retrieve(batch_id)
            if batch.status not in _PENDING:
                return batch
            if time.monotonic() >= deadline:
                raise WritingError(
                    f"batch {batch_id} is still '{batch.status}' after {self.delivery.wait_hours:g} h "
                    "(attributes.texts.writer.delivery.wait_hours). The same command collects it later; nothing is lost"
                )
            time.sleep(self.delivery.poll_seconds)

    def _collect(self, text: str, requests: dict[str, Request | str]) -> Iterator[str]:
        """Record the answers of one result file; the requests that were refused, and why.

        Lines that are torn, unknown, repeated or without an answer give none.
        """
        for line in text.splitlines():
            try:
                found = json.loads(line)
                request = requests.get(found["custom_id"])
                response = found.get("response") or {}
                status = int(response.get("status_code") or 0)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if request is None:
                continue
            if status == _OK and not found.get("error"):
                try:
                    answer, usage = read_completion(response.get("body"), self.key)
                except Unreadable:
                    continue
                self.ledger.record_answer(request, answer, usage, self.price, None, "batch")
            elif status in (400, 401, 403, 404, 422):
                yield self.key.hide(json.dumps(response.get("body")))[:300]


def _parts(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """The requests in as many batches as the rules of size ask for."""
    part: list[Request] = []
    size = 0
    for request in requests:
        length = len(_line(request).encode())
        if part and (len(part) == LARGEST or size + length > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(request)
        size += length
    if part:
        yield part


def _line(request: Request) -> str:
    row: dict[str, Any] = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions"}
    return json.dumps({**row, "body": request.body})


def _pause(error: Exception, attempt: int) -> float:
    """Seconds to wait: what the server asks for, else twice as long each time."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        return float(headers.get("retry-after", ""))
    except ValueError:
        return min(8.0, 0.5 * 2**attempt)
