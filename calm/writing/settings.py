"""Section `attributes` of params.yaml: how many guidance texts, who writes them, and when they are good enough."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from calm.settings import NonNegative, NonNegativeInt, Positive, PositiveInt, Section, Share


class GrammarWriter(Section):
    """Guidance texts from the offline, seeded grammar."""

    provider: Literal["grammar"]


class ChatDelivery(Section):
    """Chat completions, several at a time."""

    kind: Literal["chat"] = "chat"
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16


class BatchDelivery(Section):
    """The Batch API: half the price, answers within a day. A run that is stopped collects its batch next time."""

    kind: Literal["batch"]
    poll_seconds: Positive = 60.0
    wait_hours: Positive = 26.0  # in one run


class TokenPrice(Section):
    """US dollars per million tokens."""

    input: NonNegative
    output: NonNegative


class TextChecks(Section):
    """What a written text must not be; the rules are listed in docs/texts.md."""

    max_words: PositiveInt = 40
    duplicate: Annotated[float, Field(gt=0, le=1)] = 0.95  # cosine from which on two texts of a state are one
    margin: NonNegative = 0.05  # by how much the catalogue's words of another state may be nearer


class OpenAIWriter(Section):
    """Texts from an OpenAI-compatible endpoint; the key comes from OPENAI_API_KEY alone."""

    provider: Literal["openai"]
    model: str = "gpt-3.5-turbo"
    base_url: str = "https://api.openai.com/v1"
    temperature: NonNegative = 1.0
    seed: NonNegativeInt = 17  # of the requests: apart from the run's seed, or each new run would have to pay again
    texts_per_request: PositiveInt = 10
    max_tokens: PositiveInt = 800  # of one answer
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # what the server calls it
    answer_format: Literal["json_object", "json_schema", "text"] = "json_object"
    delivery: Annotated[ChatDelivery | BatchDelivery, Field(discriminator="kind")] = ChatDelivery()
    timeout_seconds: Positive = 60.0
    retries: NonNegativeInt = 6  # of a request that fails on its way
    rounds: PositiveInt = 4  # of asking for what is still missing or was rejected
    checks: TextChecks = TextChecks()
    price: TokenPrice | None = None  # null = the dated table in calm/writing/prices.yaml
    budget_usd: NonNegative = 5.0  # for everything that the endpoint's ledger holds

    @model_validator(mode="after")
    def _address_is_public(self) -> OpenAIWriter:
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("attributes.texts.writer.base_url must be an address such as http://localhost:8000/v1")
        if address.username or address.password or address.query or address.fragment:
            raise ValueError(
                "attributes.texts.writer.base_url holds more than an address; keys come from OPENAI_API_KEY alone"
            )
        return self


class TextGate(Section):
    """When the guidance texts are good enough to train on."""

    accuracy: Share  # least share of texts that are nearest to their own state among those of their level


class TextParams(Section):
    """How many guidance texts per attribute state, and who writes them."""

    per_state: PositiveInt
    gate: TextGate
    writer: Annotated[GrammarWriter | OpenAIWriter, Field(discriminator="provider")]


class AttributeParams(Section):
    """The guidance of pre-training."""

    texts: TextParams
