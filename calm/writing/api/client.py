"""The key, the official client, and its errors in words for people. The key is shown nowhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from calm.writing.errors import WritingError
from calm.writing.settings import OpenAIWriter

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI, OpenAIError

VARIABLE = "OPENAI_API_KEY"
_HIDDEN = "[key]"
_SHOWN = 300  # characters of a server's message
KEPT = "Run the same command again to go on: every answer so far is in the ledger"


class Key:
    """The key, from the environment alone. It is never printed: not even by its repr."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

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

    def __repr__(self) -> str:
        return f"Key({_HIDDEN})"

    __str__ = __repr__

    def hide(self, text: str) -> str:
        """The text without the key, wherever a server may have put it."""
        return text.replace(self._value, _HIDDEN)

    def reveal(self) -> str:
        """The key itself, for the client's header."""
        return self._value


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


def async_client(writer: OpenAIWriter, key: Key) -> AsyncOpenAI:
    """The official client, for chat completions; it tries again by itself and keeps to Retry-After."""
    from openai import AsyncOpenAI

    return AsyncOpenAI(
        api_key=key.reveal(), base_url=writer.base_url, timeout=writer.timeout_seconds, max_retries=writer.retries
    )


def client(writer: OpenAIWriter, key: Key) -> OpenAI:
    """The same, for batches."""
    from openai import OpenAI

    return OpenAI(
        api_key=key.reveal(), base_url=writer.base_url, timeout=writer.timeout_seconds, max_retries=writer.retries
    )


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
