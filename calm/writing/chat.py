"""An endpoint: its key, which is shown nowhere, chat completions several at a time, and errors in words for people."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from calm.writing import WritingError
from calm.writing.ledger import Ledger, Price
from calm.writing.requests import Answer, Request
from calm.writing.settings import ChatDelivery, OpenAIWriter

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAIError

VARIABLE = "OPENAI_API_KEY"
_HIDDEN = "[key]"
_SHOWN = 300  # characters of a server's message
KEPT = "Run the same command again to go on: every answer so far is in the ledger"


class Unreadable(Exception):
    """A response with status 200 that is no chat completion."""


def ask(requests: Sequence[Request], writer: OpenAIWriter, key: Key, price: Price, ledger: Ledger) -> None:
    """Send requests, `concurrency` at a time, and write every answer into the ledger as it arrives.

    Raises:
        WritingError: a request has no answer after all tries, or the key or a request is refused. Requests that are
            under way by then are waited for: their answers are paid for.
    """
    asyncio.run(_Chat(writer, key, price, ledger).all(requests))


class _Chat:
    def __init__(self, writer: OpenAIWriter, key: Key, price: Price, ledger: Ledger) -> None:
        self.writer, self.key, self.price, self.ledger = writer, key, price, ledger
        self.failures: list[BaseException] = []

    async def all(self, requests: Sequence[Request]) -> None:
        from openai import AsyncOpenAI

        assert isinstance(self.writer.delivery, ChatDelivery)
        waiting = iter(requests)
        async with AsyncOpenAI(**service(self.writer, self.key)) as client:
            count = min(self.writer.delivery.concurrency, len(requests))
            workers = [asyncio.create_task(self._work(client, waiting)) for _ in range(count)]
            try:
                await asyncio.wait(workers)
            except asyncio.CancelledError:  # Ctrl-C: what is under way is still received
                self.failures.append(KeyboardInterrupt())
                await asyncio.wait(workers)
        if self.failures:
            raise self.failures[0]

    async def _work(self, client: AsyncOpenAI, waiting: Iterator[Request]) -> None:
        for request in waiting:
            if self.failures:
                return
            try:
                await self._ask(client, request)
            except Exception as error:
                self.failures.append(error)
                return

    async def _ask(self, client: AsyncOpenAI, request: Request) -> None:
        import openai

        start = time.monotonic()
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(Unreadable),
                stop=stop_after_attempt(self.writer.retries + 1),
                wait=wait_random_exponential(multiplier=0.1, max=8),
            ):
                with attempt:
                    answer, usage = await self._complete(client, request)
        except RetryError:
            raise WritingError(
                f"{self.writer.base_url} sent {self.writer.retries + 1} responses in a row that are no chat "
                "completions: is attributes.texts.writer.base_url the address of an OpenAI-compatible API (.../v1)?"
            ) from None
        except openai.OpenAIError as error:
            raise explained(error, self.writer, self.key) from None
        self.ledger.record_answer(request, answer, usage, self.price, time.monotonic() - start, "chat")

    async def _complete(self, client: AsyncOpenAI, request: Request) -> tuple[Answer, dict[str, int]]:
        import openai

        # The same key for each try: a server that knows the header answers, and charges, once. `post` and not
        # `chat.completions.create`: what is sent is plain JSON already, and to turn it into the client's types and the
        # answer out of them takes longer than all the rest.
        options: Any = {"headers": {"Idempotency-Key": request.key}}
        try:
            body = await client.post("/chat/completions", body=request.body, cast_to=object, options=options)
        except (openai.APIResponseValidationError, ValueError) as error:  # not JSON
            raise Unreadable from error
        return read_completion(body, self.key)


def read_completion(body: Any, key: Key) -> tuple[Answer, dict[str, int]]:
    """Answer and token counts of a chat completion; what it says is freed of the key.

    Raises:
        Unreadable: it is none.
    """
    try:
        choice = body["choices"][0]
        message = choice["message"]
        said = [message.get("content"), message.get("refusal"), choice.get("finish_reason"), body.get("model")]
        usage = {name: int((body.get("usage") or {}).get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise Unreadable from error
    if not all(part is None or isinstance(part, str) for part in said):
        raise Unreadable
    content, refusal, finish, model = (None if part is None else key.hide(part) for part in said)
    return Answer(content, refusal, finish, model or "unknown"), usage


class Key(SecretStr):
    """The key, from the environment alone. It is never printed: not even by its repr."""

    @classmethod
    def from_environment(cls) -> Key | None:
        """The key in OPENAI_API_KEY, or None without one.

        Raises:
            WritingError: it has characters that cannot stand in a header.
        """
        value = os.environ.get(VARIABLE, "").strip()
        if not value:
            return None
        if not (value.isascii() and value.isprintable() and " " not in value):
            raise WritingError(f"{VARIABLE} holds blanks or characters that no key has (it is not shown here)")
        return cls(value)

    def hide(self, text: str) -> str:
        """The text without the key, wherever a server may have put it."""
        return text.replace(self.get_secret_value(), _HIDDEN)


def required_key(endpoint: str) -> Key:
    """The key, before anything is sent.

    Raises:
        WritingError: there is none.
    """
    key = Key.from_environment()
    if key is None:
        raise WritingError(
            f"{VARIABLE} is not set: {endpoint} has to be asked and takes a key from there alone "
            "(for a server that wants none, set it to any word)"
        )
    return key


def service(writer: OpenAIWriter, key: Key) -> dict[str, Any]:
    """What the official client is made with; it tries again by itself and keeps to Retry-After."""
    return {
        "api_key": key.get_secret_value(),
        "base_url": writer.base_url,
        "timeout": writer.timeout_seconds,
        "max_retries": writer.retries,
    }


def explained(error: OpenAIError, writer: OpenAIWriter, key: Key) -> WritingError:
    """An error of the client as one for people, without the key."""
    import openai

    said = key.hide(str(error))[:_SHOWN]
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return WritingError(f"{writer.base_url} refused the key in {VARIABLE}: {said}")
    if isinstance(error, openai.RateLimitError):
        wait = error.response.headers.get("retry-after")
        when = f", and asks to wait {wait} s" if wait else ""
        return WritingError(f"{writer.base_url} takes no more requests for now{when}: {said}. {KEPT}")
    if isinstance(error, openai.APIConnectionError):
        what = "did not answer in time" if isinstance(error, openai.APITimeoutError) else "cannot be reached"
        return WritingError(f"{writer.base_url} {what}, in {writer.retries + 1} tries. {KEPT}")
    if isinstance(error, openai.APIStatusError) and error.status_code >= 500:
        return WritingError(f"{writer.base_url} failed in {writer.retries + 1} tries: {said}. {KEPT}")
    return WritingError(f"{writer.base_url} refused a request (attributes.texts.writer): {said}")
