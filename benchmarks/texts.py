"""How near 5,000 texts come to the time that the latency and the concurrency allow: `python -m benchmarks.texts`.

A server in a process of its own answers over HTTP after 50 ms. Each answer goes through the official client, is
checked to be a chat completion and is written into a ledger. The time allowed is requests / concurrency * latency.
Beside it stands the processor time of the client alone: on a machine that others use, waiting for a core is what the
ratio shows. `busy` is the load average at the end, over the number of cores.
The texts are synthetic. The text encoder, which reads the texts between rounds, is not part of it.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from calm.attributes.taxonomy import taxonomy
from calm.writing import chat
from calm.writing.chat import required_key
from calm.writing.ledger import Ledger, price_of
from calm.writing.requests import Request, read_answer, state_topics
from calm.writing.settings import ChatDelivery, OpenAIWriter, TokenPrice
from calm.writing.stage import Outcome, open_requests
from tests.writing.server import KEY

REPOSITORY = Path(__file__).parents[1]


@contextmanager
def serving(latency: float) -> Iterator[str]:
    """The address of a server process."""
    arguments = [sys.executable, "-m", "tests.writing.server", "--latency", str(latency)]
    with subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def timed(requests: Sequence[Request], writer: OpenAIWriter) -> tuple[float, float]:
    """Seconds from the first request to the last answer on disk, and of the processor.

    Every request is answered, with all its texts: asserted.
    """
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.jsonl") as ledger:
        start, processor = time.perf_counter(), time.process_time()
        chat.ask(requests, writer, required_key(writer.base_url), price_of(writer), ledger)
        seconds, used = time.perf_counter() - start, time.process_time() - processor
        for request in requests:
            answer = ledger.answer(request.key)
            assert answer is not None
            assert len(read_answer(answer, request.count)[0]) == request.count
    return seconds, used


def main() -> None:
    """Print one row for each way of asking."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[4, 8, 16])
    given = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = KEY
    states = sum(len(attribute.all_states) for attribute in taxonomy().attributes)
    topics = state_topics(taxonomy(), math.ceil(given.texts / states))
    print("| texts per request | requests | at a time | allowed s | taken s | ratio | processor s | busy |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with serving(given.latency) as url:
        for per_request, concurrency in [(1, c) for c in given.concurrency] + [(10, 4)]:
            writer = OpenAIWriter(
                provider="openai",
                base_url=url,
                texts_per_request=per_request,
                delivery=ChatDelivery(concurrency=concurrency),
                price=TokenPrice(input=0.0, output=0.0),
            )
            requests = open_requests(topics, Outcome(), 0, writer)
            assert sum(request.count for request in requests) >= given.texts
            timed(requests[:concurrency], writer)  # imports and connections are not what is measured
            seconds, used = timed(requests, writer)
            allowed = math.ceil(len(requests) / concurrency) * given.latency
            print(
                f"| {per_request} | {len(requests):,} | {concurrency} | {allowed:.1f} | {seconds:.1f} | "
                f"{seconds / allowed:.2f} | {used:.1f} | {os.getloadavg()[0] / (os.cpu_count() or 1):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
