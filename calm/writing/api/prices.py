"""What answers cost, by a dated table, and what they can cost at most."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from calm.settings import ParamsError
from calm.writing.settings import OpenAIWriter

TABLE = Path(__file__).parent / "prices.yaml"
_MILLION = 1e6
_FRAME_TOKENS = 16  # of a message beside its text: role, separators, the start of the answer


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
            f"attributes.texts.writer.price: calm/writing/api/prices.yaml has no price for '{writer.model}'; say "
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
