"""Does `calm serve --api` keep its memory and its answers under many requests? A soak on this machine alone.

    python -m benchmarks.endpoint PHOTOGRAPH ... [--requests 500] [--at-once 8]

Starts a server of its own on a free port and asks it by OpenAI's client, for scores mostly, comments and suggestions
between them. Every answer is compared with the first of its kind, and what `Calm` itself says with that. Memory is the
server's resident set, as the kernel tells it.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from openai import OpenAI

from calm.assistant import Calm
from calm.instructions import COMMENT_PROMPT, SCORE_PROMPT, SUGGESTION_PROMPT

QUESTIONS = (*(SCORE_PROMPT,) * 8, COMMENT_PROMPT, SUGGESTION_PROMPT)
STEPS = 10  # at which memory is read


def resident(process: int) -> float:
    """MiB of memory that a process holds now."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024


def expected(photographs: list[Path]) -> dict[tuple[str, Path], str]:
    """What calm says without a server."""
    calm = Calm.from_pretrained(device="cpu")
    answers: dict[tuple[str, Path], str] = {}
    for path in photographs:
        answers[SCORE_PROMPT, path] = calm.score(path)[0].raw
        answers[COMMENT_PROMPT, path] = calm.comment(path)[0]
        answers[SUGGESTION_PROMPT, path] = "\n".join(one.text for one in calm.suggest(path)[0])
    return answers


class Client:
    """Asks one server, and keeps how long each answer took."""

    def __init__(self, port: int, answers: dict[tuple[str, Path], str]) -> None:
        self._client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=600)
        self._model = self._client.models.list().data[0].id
        self._answers, self.seconds = answers, list[float]()
        read = {path: base64.b64encode(path.read_bytes()).decode() for _, path in answers}
        self._urls = {path: f"data:image/jpeg;base64,{data}" for path, data in read.items()}

    def ask(self, asked: tuple[str, Path]) -> None:
        """One request, whose answer must be calm's own."""
        question, path = asked
        content = [
            {"type": "image_url", "image_url": {"url": self._urls[path]}},
            {"type": "text", "text": question},
        ]
        start = time.perf_counter()
        said = self._client.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": content}],  # type: ignore[list-item,misc]
        )
        self.seconds.append(time.perf_counter() - start)
        assert said.choices[0].message.content == self._answers[asked], asked


def main() -> None:
    """Ask, and print memory and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+", type=Path)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=8)
    arguments = parser.parse_args()
    answers = expected(arguments.photographs)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from calm.cli import app; app()", "serve", "--api"]
    server = subprocess.Popen([*command, "--port", str(port), "--device", "cpu"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        print(server.stdout.readline().strip())
        client = Client(port, answers)
        every = itertools.cycle(itertools.product(QUESTIONS, arguments.photographs))
        asked = list(itertools.islice(every, arguments.requests))
        memory = [resident(server.pid)]
        start = time.perf_counter()
        with ThreadPoolExecutor(arguments.at_once) as pool:
            for part in np.array_split(np.arange(len(asked)), STEPS):
                list(pool.map(client.ask, [asked[number] for number in part]))
                memory.append(resident(server.pid))
        took = time.perf_counter() - start
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    print(f"{len(client.seconds)} requests, {arguments.at_once} at a time: {took:.0f} s, every answer calm's own")
    print(
        "seconds of a request, median and most:", *(f"{value:.2f}" for value in np.quantile(client.seconds, [0.5, 1]))
    )
    print("MiB before, and after each tenth:", *(f"{value:.0f}" for value in memory))


if __name__ == "__main__":
    main()
