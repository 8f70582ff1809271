"""A server that speaks the parts of the OpenAI API that calm uses, over real HTTP, and misbehaves on request.

What it writes is synthetic: texts of calm's own grammar, drawn by the request's bytes, so that equal requests get equal
answers. `python -m tests.writing.server --latency 0.05` serves until it is killed and prints its address.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from calm.attributes.grammar import all_guidance
from calm.writing.requests import hand_written

KEY = "sk-synthetic-0123456789abcdefABCDEF"
MODEL = "gpt-3.5-turbo-0125"
Fault = Callable[[int, dict[str, Any]], str | None]  # (number of the chat request, its body) -> kind of fault


@cache
def _guidance(attribute: str, state: str) -> list[str]:
    return all_guidance(attribute, state)


@dataclass
class BatchPlan:
    """What becomes of one batch.

    Attributes:
        polls: how often it is still under way when asked; None = for ever.
        status: how it ends.
        answered: share of its requests that have a line in the output file.
        lines: last change of the lines of the output file.
        errors: lines of the error file, one for each request without an answer.
        lose_creation: the batch is created, but the connection is cut before the client hears of it.
    """

    polls: int | None = 1
    status: str = "completed"
    answered: float = 1.0
    lines: Callable[[list[str]], list[str]] = lambda lines: lines
    errors: bool = False
    lose_creation: bool = False


@dataclass
class FakeOpenAI:
    """The server's memory and its faults.

    Attributes:
        fault: decides for each chat request what goes wrong, if anything.
        plan: decides for each batch, by its number, what becomes of it.
        received: bodies of all chat requests.
        answered: how often each request (by its Idempotency-Key) got a complete answer: what would be charged.
        batched: how often each request (by custom_id) was part of a batch that was created.
    """

    latency: float = 0.0
    fault: Fault = lambda number, body: None
    plan: Callable[[int], BatchPlan] = lambda number: BatchPlan()
    compose: Callable[[dict[str, Any]], list[str]] | None = None
    received: list[dict[str, Any]] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    batched: Counter[str] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    authorised: Callable[[str | None], bool] = lambda header: header == f"Bearer {KEY}"
    moment: Callable[[str, str], None] = lambda when, path: None  # "before" and "after" each request is answered
    times: list[float] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, port: int = 0) -> FakeOpenAI:
        owner = self

        class Handler(_Handler):
            fake = owner

        self.http = _Server(("127.0.0.1", port), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def texts(self, body: dict[str, Any]) -> list[str]:
        """As many texts as the prompt asks for, none of those that it wants avoided."""
        if self.compose is not None:
            return self.compose(body)
        prompt = body["messages"][-1]["content"]
        named = dict(re.findall(r"^(Attribute|State|Task): (\w+)$", prompt, re.MULTILINE))
        count = int(re.search(r"Write (\d+) distinct", prompt).group(1))  # type: ignore[union-attr]
        pool = hand_written(named["Task"]) if "Task" in named else _guidance(named["Attribute"], named["State"])
        avoid = set(re.findall(r"^- (.+)$", prompt, re.MULTILINE))
        pool = [text for text in pool if text not in avoid]
        seed = int.from_bytes(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()[:8], "big")
        order = np.random.default_rng(seed).permutation(len(pool))
        return [pool[index] for index in order[:count]]

    def completion(self, body: dict[str, Any], kind: str | None = None) -> dict[str, Any]:
        """A chat completion; `kind` says what is wrong with it."""
        texts = self.texts(body)
        message: dict[str, Any] = {"role": "assistant", "content": json.dumps({"texts": texts}), "refusal": None}
        finish = "stop"
        match kind:
            case "garbage":
                message["content"] = "Sure! Here are your texts: 1. Too dark"
            case "wrong_schema":
                message["content"] = json.dumps({"texts": [{"text": text} for text in texts]})
            case "fenced":
                message["content"] = f"```json\n{message['content']}\n```"
            case "empty_text":
                message["content"] = json.dumps({"texts": ["", *texts[1:]]})
            case "blank":
                message["content"] = ""
            case "refusal":
                message |= {"content": None, "refusal": "I can't help with that."}
            case "filtered":
                finish = "content_filter"
            case "fewer":
                message["content"] = json.dumps({"texts": texts[: len(texts) // 2]})
            case "cut_off":
                message["content"], finish = message["content"][:20], "length"
            case "echo_key":
                message["content"] = json.dumps({"texts": [f"{KEY} is dark.", *texts[1:]]})
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140},
        }

    def create_batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            number = len(self.batches)
            plan = self.plan(number)
            name = f"batch_{number}"
            requests = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
            for request in requests:
                self.batched[request["custom_id"]] += 1
            self.batches[name] = {
                "id": name,
                "object": "batch",
                "endpoint": asked["endpoint"],
                "input_file_id": asked["input_file_id"],
                "completion_window": "24h",
                "created_at": 1,
                "status": "validating",
                "metadata": asked.get("metadata"),
                "output_file_id": None,
                "error_file_id": None,
                "_plan": plan,
                "_polls": 0,
                "_requests": requests,
            }
            return self.batches[name]

    def poll(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        plan: BatchPlan = batch["_plan"]
        batch["_polls"] += 1
        if plan.polls is None or batch["_polls"] <= plan.polls:
            batch["status"] = "in_progress"
            return batch
        batch["status"] = plan.status
        if plan.status == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": "invalid", "message": "line 1 is not valid"}]}
            return batch
        kept = round(plan.answered * len(batch["_requests"]))
        lines = []
        for request in batch["_requests"][:kept]:
            response = {"status_code": 200, "request_id": "r", "body": self.completion(request["body"])}
            lines.append(
                json.dumps({"id": "x", "custom_id": request["custom_id"], "response": response, "error": None})
            )
            self.answered[request["custom_id"]] += batch["output_file_id"] is None
        batch["output_file_id"] = f"file-{name}-out"
        self.files[batch["output_file_id"]] = "".join(line + "\n" for line in plan.lines(lines))
        if plan.errors:
            failed = {"status_code": 500, "request_id": "r", "body": {"error": {"message": "internal"}}}
            rest = [{"custom_id": r["custom_id"], "response": failed, "error": None} for r in batch["_requests"][kept:]]
            batch["error_file_id"] = f"file-{name}-errors"
            self.files[batch["error_file_id"]] = "".join(json.dumps(row) + "\n" for row in rest)
        return batch


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed hang up: nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeOpenAI

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0].removeprefix("/v1")
        self.fake.moment("before", f"GET {path}")
        self._get(path)
        self.fake.moment("after", f"GET {path}")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.removeprefix("/v1")
        self.fake.moment("before", f"POST {path}")
        self._post(path, raw)
        self.fake.moment("after", f"POST {path}")

    def _get(self, path: str) -> None:
        if not self._allowed():
            return
        if path == "/batches":
            shown = [_shown(batch) for batch in reversed(self.fake.batches.values())]
            self._send(200, {"object": "list", "data": shown, "has_more": False})
        elif path.startswith("/batches/"):
            self._send(200, _shown(self.fake.poll(path.split("/")[2])))
        elif path.startswith("/files/") and path.endswith("/content"):
            self._send_bytes(200, self.fake.files[path.split("/")[2]].encode(), "application/octet-stream")
        else:
            self._send(404, {"error": {"message": f"no {path}"}})

    def _post(self, path: str, raw: bytes) -> None:
        if not self._allowed():
            return
        if path == "/files":
            boundary = self.headers["Content-Type"].split("boundary=")[1].encode()
            part = next(part for part in raw.split(b"--" + boundary) if b'name="file"' in part)
            name = f"file-{len(self.fake.files)}"
            self.fake.files[name] = part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n").decode()
            self._send(200, {"id": name, "object": "file", "bytes": len(raw), "purpose": "batch", "filename": "b"})
        elif path == "/batches":
            batch = self.fake.create_batch(json.loads(raw))
            if batch["_plan"].lose_creation:
                self._cut()
            else:
                self._send(200, _shown(batch))
        else:
            self._chat(json.loads(raw))

    def _chat(self, body: dict[str, Any]) -> None:
        fake = self.fake
        with fake._lock:
            number = len(fake.received)
            fake.received.append(body)
            fake.times.append(time.monotonic())
            fake._at_once += 1
            fake.most_at_once = max(fake.most_at_once, fake._at_once)
        try:
            if fake.latency:
                time.sleep(fake.latency)
            self._answer(body, fake.fault(number, body))
        finally:
            with fake._lock:
                fake._at_once -= 1

    def _answer(self, body: dict[str, Any], kind: str | None) -> None:
        match kind:
            case "429":
                self._send(429, {"error": {"message": "slow down", "type": "requests"}}, {"Retry-After": "1"})
            case "429 for an hour":
                self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": "3600"})
            case "500":
                self._send(500, {"error": {"message": "internal"}})
            case "400":
                self._send(400, {"error": {"message": f"unknown parameter; your key is {KEY}"}})
            case "slow":
                time.sleep(1.5)
                self._cut()
            case "cut":
                self._cut()
            case "cut in the body":
                data = json.dumps(self.fake.completion(body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self._cut()
            case "not json":
                self._send_bytes(200, b'{"choices": [', "application/json")
            case "html":
                self._send_bytes(200, b"<html>It works!</html>", "text/html")
            case "no choices":
                self._send(200, {"object": "chat.completion", "choices": []})
            case _:
                with self.fake._lock:
                    self.fake.answered[self.headers.get("Idempotency-Key", "")] += 1
                self._send(200, self.fake.completion(body, kind))

    def _allowed(self) -> bool:
        if self.fake.authorised(self.headers.get("Authorization")):
            return True
        # As unkind as a server can be: it sends the key back.
        sent = str(self.headers.get("Authorization", "")).removeprefix("Bearer ")
        self._send(401, {"error": {"message": f"Incorrect API key provided: {sent}", "code": "invalid_api_key"}})
        return False

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(body).encode(), "application/json", headers)

    def _send_bytes(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _shown(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if not name.startswith("_")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    serving = FakeOpenAI(latency=parser.parse_args().latency).start()
    print(serving.url, flush=True)
    threading.Event().wait()
