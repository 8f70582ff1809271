"""What OpenAI's own client is told by `calm serve --api`: answers, errors, limits; on this machine alone."""

from __future__ import annotations

import base64
import io
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import requests
from PIL import Image

from calm.assistant import Calm
from calm.assistant.inputs import opened
from calm.instructions import COMMENT_PROMPT, PROMPTS, SCORE_PROMPT, SUGGESTION_PROMPT, as_public
from tests import tiny

sys.path.append(str(Path(sys.prefix) / "page"))  # `make page`; last, as `calm serve` does
pytest.importorskip("uvicorn", reason="uvicorn is not installed: make page")

import uvicorn

from calm import endpoint

PNG = "data:image/png;base64,"


class Slow:
    """Stands for `Calm`: says a photograph's width when it is let go on, and counts how many it looks at."""

    provenance = {"model": "slow", "checkpoint_sha256": "c0ffee"}  # noqa: RUF012
    publics = ("para",)
    max_side = 1024

    def __init__(self) -> None:
        self.go_on, self.now, self.most, self.seen = threading.Event(), 0, 0, 0

    def score(self, images: Sequence[Image.Image], public: str | None) -> list[SimpleNamespace]:
        self.now, self.seen = self.now + 1, self.seen + 1
        self.most = max(self.most, self.now)
        assert self.go_on.wait(30)
        self.now -= 1
        return [SimpleNamespace(raw=f"{images[0].width}")]

    def comment(self, images: Sequence[Image.Image]) -> list[str]:
        raise RuntimeError("out of memory")

    suggest = comment


class Served:
    """An endpoint in a thread of this process, and OpenAI's client of it."""

    def __init__(self, calm: Any) -> None:
        self.calm = calm
        listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        app = endpoint.Endpoint(calm, calm.publics[0]).app(endpoint.LOOPBACK)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]})
        self._thread.start()
        self.client = openai.OpenAI(base_url=self.address, api_key="none", max_retries=0, timeout=60)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)

    def ask(self, question: str = SCORE_PROMPT, url: str | None = None, **more: Any) -> Any:
        asked = {"model": self.calm.provenance["model"], "messages": said(question, url or data_url())} | more
        return self.client.chat.completions.create(**asked)

    def text(self, question: str, url: str) -> str:
        text: str = self.ask(question, url).choices[0].message.content
        return text


def data_url(image: Image.Image | None = None) -> str:
    file = io.BytesIO()
    (image or Image.new("RGB", (70, 64))).save(file, "PNG")
    return PNG + base64.b64encode(file.getvalue()).decode()


def said(question: str, *urls: str) -> list[dict[str, Any]]:
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}]


@pytest.fixture(scope="module")
def real() -> Iterator[Served]:
    """The model that comes with calm."""
    served = Served(Calm.from_pretrained(device="cpu"))
    yield served
    served.stop()


@pytest.fixture
def slow() -> Iterator[Served]:
    served = Served(Slow())
    yield served
    served.calm.go_on.set()
    served.stop()


def test_questions_of_the_paper_get_calm_s_own_answers(real: Served, tmp_path: Path) -> None:
    tiny.picture(3).save(tmp_path / "photo.png")
    url, photograph = data_url(tiny.picture(3)), opened(tmp_path / "photo.png")
    answer = real.ask(SCORE_PROMPT, url)
    (score,) = real.calm.score(photograph)
    assert answer.choices[0].message.content == score.raw
    assert re.fullmatch(r"\d+\.\d\.", score.raw)
    assert answer.system_fingerprint == real.calm.provenance["checkpoint_sha256"]
    other = real.calm.publics[1]
    assert real.text(as_public(SCORE_PROMPT, other), url) == real.calm.score(photograph, public=other)[0].raw
    assert real.text(f"  {COMMENT_PROMPT.upper()}\n", url) == real.calm.comment(photograph)[0]
    suggested = [one.text for one in real.calm.suggest(photograph)[0]]
    assert real.text(SUGGESTION_PROMPT, url).splitlines() == suggested


def test_a_stream_brings_the_same_words(real: Served) -> None:
    whole = real.text(SCORE_PROMPT, data_url())
    parts = [chunk.choices[0] for chunk in real.ask(stream=True)]
    assert "".join(part.delta.content or "" for part in parts) == whole
    assert parts[-1].finish_reason == "stop"


def test_the_model_is_listed_with_the_name_that_scores_bear(real: Served) -> None:
    assert [model.id for model in real.client.models.list()] == [real.calm.provenance["model"]]


@pytest.mark.parametrize(
    ("changed", "status", "words"),
    [
        ({"model": "gpt-4o"}, 404, "no model 'gpt-4o': this is 'slow'"),
        ({"question": "Who is this?"}, 400, "not one of calm's questions: Can you give me the aesthetic score?"),
        ({"question": PROMPTS["personal"]}, 400, "not one of calm's questions"),
        ({"url": "http://127.0.0.1:1/photo.jpg"}, 400, "nothing is fetched"),
        ({"url": "file:///etc/hostname"}, 400, "nothing is fetched"),
        ({"url": "data:image/png,raw"}, 400, "write the photograph as data:image/jpeg;base64"),
        ({"url": PNG + "@@@@"}, 400, "its base64 is damaged"),
        ({"url": PNG + "aGVsbG8="}, 400, "the photograph: not a photograph in an allowed format"),
        ({"url": data_url(Image.new("1", (20_000, 5_001)))}, 400, "20000x5001 pixels, more than the 100000000 allowed"),
        ({"messages": said(SCORE_PROMPT)}, 400, "one photograph is judged, found 0"),
        ({"messages": said(SCORE_PROMPT, data_url(), data_url())}, 400, "one photograph is judged, found 2"),
        ({"messages": [{"role": "system", "content": "Be kind."}]}, 400, "messages.0.role: Input should be 'user'"),
        ({"messages": said(SCORE_PROMPT) * 2}, 400, "messages: List should have at most 1 item"),
        ({"n": 2}, 400, "n: Input should be 1"),
        ({"tools": [{"type": "function"}]}, 400, "tools: not supported"),
        ({"logprobs": True}, 400, "logprobs: not supported"),
        ({"question": COMMENT_PROMPT}, 500, "the model failed: see where calm runs"),
    ],
)
def test_what_is_not_answered_is_told_in_openai_s_way(
    slow: Served, changed: dict[str, Any], status: int, words: str
) -> None:
    slow.calm.go_on.set()
    with pytest.raises(openai.APIStatusError) as told:
        slow.ask(**changed)
    assert told.value.status_code == status
    assert words in told.value.message
    assert slow.text(SCORE_PROMPT, data_url()) == "70"  # and goes on


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"null", b"\xff\xfe", b'{"model": 1}'])
def test_a_broken_body_is_a_bad_request(slow: Served, body: bytes) -> None:
    got = requests.post(f"{slow.address}/chat/completions", data=body, timeout=30)
    assert got.status_code == 400
    assert got.json()["error"]["type"] == "invalid_request_error"


def test_a_body_of_100_mb_is_refused_whether_its_length_is_told_or_not(slow: Served) -> None:
    with pytest.raises(openai.APIStatusError, match="more than the 33554432 bytes") as told:
        slow.ask(url=PNG + "A" * 100_000_000)
    assert told.value.status_code == 413
    in_parts = (b" " * 2**20 for _ in range(100))
    assert requests.post(f"{slow.address}/chat/completions", data=in_parts, timeout=60).status_code == 413


def test_one_photograph_is_looked_at_at_a_time_and_a_bounded_number_waits(slow: Served) -> None:
    with ThreadPoolExecutor(endpoint.WAITING) as pool:
        waiting = [pool.submit(slow.ask) for _ in range(endpoint.WAITING)]
        wait_for(lambda: refused(slow))
        slow.calm.go_on.set()
        assert {one.result().choices[0].message.content for one in waiting} == {"70"}
    assert slow.calm.most == 1
    assert slow.text(SCORE_PROMPT, data_url()) == "70"


def test_nobody_is_answered_who_has_gone(slow: Served) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(slow.ask)
        wait_for(lambda: slow.calm.now)
        with pytest.raises(openai.APITimeoutError):
            slow.client.with_options(timeout=0.3).chat.completions.create(
                model="slow",
                messages=said(SCORE_PROMPT, data_url()),  # type: ignore[arg-type]
            )
        slow.calm.go_on.set()
        first.result()
    assert slow.text(SCORE_PROMPT, data_url()) == "70"
    assert slow.calm.seen == 2


def test_pages_of_others_are_refused(slow: Served) -> None:
    completions = f"{slow.address}/chat/completions"
    assert requests.post(completions, headers={"origin": "http://evil.example"}, timeout=30).status_code == 403
    rebound = requests.get(f"{slow.address}/models", headers={"host": "evil.example"}, timeout=30)
    assert rebound.status_code == 400
    assert requests.get(completions, timeout=30).json()["error"]["message"].startswith("Method Not Allowed")


def refused(served: Served) -> bool:
    """Whether a further request is turned away."""
    got = requests.post(f"{served.address}/chat/completions", data=b"{", timeout=30)
    assert got.status_code == 400 or (got.headers["retry-after"], got.json()["error"]["code"]) == ("1", "busy")
    return got.status_code == 429


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
