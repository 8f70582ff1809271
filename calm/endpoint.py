"""The model behind the requests of OpenAI's clients: `POST /v1/chat/completions` and `GET /v1/models`.

A request is one message: a photograph as a data: URL, and one of calm's own questions (`calm.instructions`). Nothing is
fetched, nothing is written to disk. One photograph is looked at at a time, and a bounded number of requests waits.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from openai.types import Model
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionContentPartImageParam,
    ChatCompletionContentPartTextParam,
)
from openai.types.shared import ErrorObject
from PIL import Image
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from calm.assistant.answers import in_words
from calm.data.store.images import ImageError, read_image

if TYPE_CHECKING:
    from calm.assistant import Calm

MOST_BYTES = 32 * 2**20  # of a request: in base64, a photograph of 24 MiB
MOST_PIXELS = 100_000_000  # of a photograph: 300 MB while it is decoded
WAITING = 16  # requests that are taken in at a time
PATIENCE = 60  # seconds for a request to arrive whole
LOOPBACK = ("127.0.0.1", "localhost")
# Keys that ask for another kind of answer, and values by which they do not. How tokens are drawn (temperature, seed)
# changes nothing: the likeliest are taken.
REFUSED = ("tools", "functions", "logprobs", "top_logprobs", "response_format", "stop", "audio", "prediction")
NOTHING: tuple[Any, ...] = (None, False, [], {}, {"type": "text"})

LOG = logging.getLogger("uvicorn.error")
Answer = Callable[[Sequence[Image.Image]], list[str]]


class Refused(Exception):
    """A request that is not answered; `parameter` is the key that is wrong."""

    def __init__(self, status: int, code: str, message: str, parameter: str | None = None) -> None:
        self.status, self.code, self.message, self.parameter = status, code, message, parameter

    def response(self) -> Response:
        """The error as OpenAI's servers write it."""
        kind = "server_error" if self.status == 500 else "invalid_request_error"
        error = ErrorObject(code=self.code, message=self.message, param=self.parameter, type=kind)
        return JSONResponse(
            {"error": error.model_dump(exclude_unset=True)},
            self.status,
            {"retry-after": "1"} if self.status == 429 else {},
        )


FAILED = (500, "internal_error", "the model failed: see where calm runs")
Part = ChatCompletionContentPartTextParam | ChatCompletionContentPartImageParam


class Message(BaseModel):
    """The user's words and photograph; a message of another role would change nothing."""

    role: Literal["user"]
    content: Annotated[
        list[Annotated[Part, Field(discriminator="type")]],
        BeforeValidator(lambda said: [{"type": "text", "text": said}] if isinstance(said, str) else said),
    ]


class Asked(BaseModel, extra="allow"):
    """Body of a request for an answer."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=1)]
    stream: bool | None = None
    n: Literal[1] | None = None

    @classmethod
    def read(cls, body: bytes) -> Asked:
        """The body, checked.

        Raises:
            Refused: it is no JSON, or asks what is not answered; the error names the key.
        """
        try:
            asked = cls.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(map(str, first["loc"])) or None
            raise Refused(400, first["type"], f"{key or 'the body'}: {first['msg']}", key) from None
        for key, value in (asked.model_extra or {}).items():
            if key in REFUSED and value not in NOTHING:
                raise Refused(400, "unsupported_parameter", f"{key}: not supported, leave it out", key)
        return asked

    def question(self) -> str:
        """The text of the message."""
        return " ".join(part["text"] for part in self.messages[0].content if part["type"] == "text")

    def photograph(self) -> bytes:
        """Content of the one photograph.

        Raises:
            Refused: there is none or several, or it is not a data: URL in base64.
        """
        urls = [part["image_url"]["url"] for part in self.messages[0].content if part["type"] == "image_url"]
        if len(urls) != 1:
            raise Refused(400, "invalid_value", f"messages: one photograph is judged, found {len(urls)}", "messages")
        head, _, data = urls[0].partition(",")
        if not (head.lower().startswith("data:") and head.lower().endswith(";base64")):
            message = "image_url: write the photograph as data:image/jpeg;base64,...; nothing is fetched"
            raise Refused(400, "invalid_image_url", message, "messages")
        try:
            return base64.b64decode(data, validate=True)
        except ValueError:
            raise Refused(400, "invalid_base64", "image_url: its base64 is damaged", "messages") from None


class Endpoint:
    """A model and what it can be asked; `public` is whose taste, where a question does not say."""

    def __init__(self, calm: Calm, public: str | None = None) -> None:
        self._calm, self._name = calm, str(calm.provenance["model"])
        self._turn, self._inside = asyncio.Lock(), 0
        self.answers = in_words(calm, public)
        self._folded = {_folded(prompt): answer for prompt, answer in self.answers.items()}

    def app(self, hosts: tuple[str, ...] = ("*",)) -> Starlette:
        """The endpoint for an ASGI server, under these names of the machine."""

        async def refuse(_: Request, error: Exception) -> Response:
            if isinstance(error, HTTPException):
                error = Refused(
                    error.status_code, "not_found", f"{error.detail}: ask /v1/chat/completions or /v1/models"
                )
            return (error if isinstance(error, Refused) else Refused(*FAILED)).response()

        return Starlette(
            routes=[Route("/v1/chat/completions", self.answer, methods=["POST"]), Route("/v1/models", self.models)],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[*hosts])],
            exception_handlers=dict.fromkeys((Refused, HTTPException, Exception), refuse),
        )

    async def models(self, _: Request) -> Response:
        """The one model."""
        about = Model(id=self._name, created=0, object="model", owned_by="calm")
        return JSONResponse({"object": "list", "data": [about.model_dump()]})

    async def answer(self, request: Request) -> Response:
        """One question about one photograph."""
        if urlsplit(request.headers.get("origin", "")).netloc not in {"", request.headers.get("host")}:
            raise Refused(403, "foreign_origin", "asked by a page of another server")
        if self._inside >= WAITING:
            raise Refused(429, "busy", f"{WAITING} requests wait already: ask again in a second")
        self._inside += 1
        try:
            asked = Asked.read(await _body(request))
            if asked.model != self._name:
                raise Refused(404, "model_not_found", f"no model '{asked.model}': this is '{self._name}'", "model")
            answer, photograph = self._chosen(asked.question()), asked.photograph()
            async with self._turn:
                if await request.is_disconnected():  # it gave up while it waited
                    raise ClientDisconnect
                text = await run_in_threadpool(self._said, answer, photograph)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            self._inside -= 1
        return self._response(text, bool(asked.stream))

    def _chosen(self, question: str) -> Answer:
        answer = self._folded.get(_folded(question))
        if answer is None:
            known = " | ".join(self.answers)
            raise Refused(400, "unknown_question", f"messages: not one of calm's questions: {known}", "messages")
        return answer

    def _said(self, answer: Answer, photograph: bytes) -> str:
        try:
            side = self._calm.max_side
            image = read_image(photograph, max_pixels=MOST_PIXELS, name="the photograph", max_side=side)
        except ImageError as error:
            raise Refused(400, "invalid_image", str(error), "messages") from None
        try:
            return answer([image])[0]
        except Exception as error:  # left to the server, it would close the connection under the next request
            LOG.exception("the model failed")
            raise Refused(*FAILED) from error

    def _response(self, text: str, streamed: bool) -> Response:
        """The whole answer, or the same as a stream of one piece."""
        told: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self._name,
            "system_fingerprint": self._calm.provenance["checkpoint_sha256"],  # scores under another one are others
        }
        message = {"role": "assistant", "content": text}
        if not streamed:
            choices: list[Any] = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
            return JSONResponse(ChatCompletion(**told, object="chat.completion", choices=choices).model_dump())

        def events() -> Iterator[str]:
            for delta, reason in ((message, None), ({}, "stop")):
                choices: list[Any] = [{"index": 0, "delta": delta, "finish_reason": reason}]
                chunk = ChatCompletionChunk(**told, object="chat.completion.chunk", choices=choices)
                yield f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")


def _folded(question: str) -> str:
    """A question however its blanks and capitals are written."""
    return " ".join(question.split()).casefold()


async def _body(request: Request) -> bytes:
    """A request's body, never more of it than is allowed."""
    too_long = Refused(413, "too_large", f"the request has more than the {MOST_BYTES} bytes allowed")
    if int(request.headers.get("content-length", 0)) > MOST_BYTES:  # digits: the server has seen to it
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    raise too_long
    except TimeoutError:
        raise Refused(408, "timeout", f"the request did not arrive within {PATIENCE} seconds") from None
    return bytes(body)


def serve(endpoint: Endpoint, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer until the process is told to stop; `ready` is called with the base URL that clients want.

    Raises:
        ValueError: the model cannot score, comment or suggest; the message says which one can.
    """
    import uvicorn

    for answer in endpoint.answers.values():  # a model that cannot says so before anybody asks
        answer([Image.new("RGB", (64, 64))])
    app = endpoint.app(LOOPBACK if host in LOOPBACK else ("*",))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=30))
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
