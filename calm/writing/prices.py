"""What answers cost by a dated table, and what a run would send and cost, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from calm.settings import ParamsError
from calm.writing import WritingError
from calm.writing.checks import MOST_BYTES
from calm.writing.requests import Request
from calm.writing.settings import OpenAIWriter

TABLE = Path(__file__).parent / "prices.yaml"
_MILLION = 1e6
_FRAME_TOKENS = 16  # of a message beside its text: role, separators, the start of the answer
_MARK_BYTES = 10  # around each avoided text in a request, with its share of the heading
AVOIDED = 10  # texts that there are already, in a request for more of a style
_TEXT_TOKENS = 22  # of a text of this kind in JSON, as a rule: some sixteen words


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
