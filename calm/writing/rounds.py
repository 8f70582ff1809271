"""Texts from a language model: asked for, checked, and asked for again until there are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from calm.writing import WritingError, batch, chat
from calm.writing.chat import required_key
from calm.writing.checks import Embed, Meaning, Rules, bare, most_common, shortened
from calm.writing.ledger import Ledger
from calm.writing.prices import AVOIDED, ceiling, cost_of, price_of, within_budget
from calm.writing.requests import Answer, Request, read_answer, requests_of
from calm.writing.settings import OpenAIWriter
from calm.writing.topics import Topic

_LISTED = 5


@dataclass(frozen=True)
class Written:
    """A text and where it is from."""

    text: str
    style: str
    provider: str
    model: str
    request: str  # sha256


@dataclass(frozen=True)
class Rejected:
    """A text, or a whole answer, that was not taken."""

    topic: Topic
    style: str
    round: int
    text: str
    reason: str
    request: str  # sha256


@dataclass
class Outcome:
    """Texts of each topic in the order in which they were taken, and what was rejected."""

    taken: dict[tuple[str, str, str], list[Written]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    vectors: dict[tuple[str, str, str], list[np.ndarray]] = field(default_factory=dict)

    def missing(self, topic: Topic) -> dict[str, int]:
        """How many texts each style still lacks."""
        had = [written.style for written in self.taken.get(topic.place, [])]
        return {style: share - had.count(style) for style, share in topic.shares().items()}


def write(
    topics: Sequence[Topic],
    writer: OpenAIWriter,
    embed: Embed,
    ledger: Ledger,
    say: Callable[[str], None],
) -> Outcome:
    """`wanted` texts for every topic. What the ledger holds is not asked again; what comes out depends on it alone.

    Rounds end for all topics together, and within one the order is that of the topics, whatever arrived first: so a
    run that was stopped and started again ends with the same texts as one that was not.

    Args:
        say: told how far the work is.

    Raises:
        Shortfall: topics lack texts after the last round; it holds the outcome so far.
        WritingError: no key, no money, no answer. What was answered is in the ledger all the same.
    """
    rules = Rules(topics, writer.checks)
    meaning = Meaning(topics, embed, writer.checks)
    outcome = Outcome()
    for round_ in range(writer.rounds):
        requests = open_requests(topics, outcome, round_, writer)
        if not requests:
            return outcome
        _ask(requests, writer, ledger, round_, say)
        _take(requests, writer, ledger, rules, meaning, outcome)
    if any(sum(outcome.missing(topic).values()) for topic in topics):
        raise Shortfall(topics, writer, outcome)
    return outcome


class Shortfall(WritingError):
    """Topics that have too few texts after the last round."""

    def __init__(self, topics: Sequence[Topic], writer: OpenAIWriter, outcome: Outcome) -> None:
        self.outcome = outcome
        short = []
        for topic in topics:
            lacking = sum(outcome.missing(topic).values())
            if lacking:
                reasons = most_common(one.reason for one in outcome.rejected if one.topic.place == topic.place)
                short.append(f"{topic.path} lacks {lacking} of {topic.wanted} (rejected: {reasons or 'nothing'})")
        more = f"; and {len(short) - _LISTED} more" if len(short) > _LISTED else ""
        super().__init__(
            f"{writer.model} wrote too few usable texts in {writer.rounds} rounds: {'; '.join(short[:_LISTED])}{more}. "
            "What was rejected is in data/texts/rejected.parquet. Raise attributes.texts.writer.rounds to ask for what "
            "is missing and nothing else, or say more in the attribute's template"
        )


def open_requests(topics: Sequence[Topic], outcome: Outcome, round_: int, writer: OpenAIWriter) -> list[Request]:
    """What has to be asked in a round, in the order of the topics."""
    found = []
    for topic in topics:
        for style, missing in outcome.missing(topic).items():
            avoid = [written.text for written in outcome.taken.get(topic.place, []) if written.style == style]
            found += requests_of(topic, style, missing, avoid[-AVOIDED:], round_, writer)
    return found


def provider_name(writer: OpenAIWriter) -> str:
    """The provider as it stands beside each text: the protocol and who was spoken to."""
    return f"openai@{writer.base_url.split('://')[1].rstrip('/')}"


def _ask(
    requests: Sequence[Request], writer: OpenAIWriter, ledger: Ledger, round_: int, say: Callable[[str], None]
) -> None:
    """Send what the ledger has no answer to, if the budget allows it."""
    unanswered = ledger.unanswered(requests)
    say(f"round {round_ + 1}: {len(requests)} requests, {len(requests) - len(unanswered)} of them answered before")
    if not unanswered:
        return
    price = price_of(writer)
    cost = cost_of(unanswered, writer, price)
    within_budget(writer, ledger.spent, ceiling(cost, writer, price) if round_ == 0 else cost.most_usd)
    key = required_key(writer.base_url)
    send = chat.ask if writer.delivery.kind == "chat" else batch.ask
    send(unanswered, writer, key, price, ledger)


def _take(
    requests: Sequence[Request],
    writer: OpenAIWriter,
    ledger: Ledger,
    rules: Rules,
    meaning: Meaning,
    outcome: Outcome,
) -> None:
    """Check all texts of a round and take the good ones."""
    passed: list[tuple[Request, Answer, str]] = []
    for request in requests:
        answer = ledger.answer(request.key)
        assert answer is not None, "every request of a round is answered"
        texts, reason = read_answer(answer, request.count)
        if reason:
            _reject(outcome, request, answer.refusal or answer.content or "", reason)
        for text in texts:
            reason = rules.broken(request.topic, text)
            if reason:
                _reject(outcome, request, text, reason)
            else:
                passed.append((request, answer, text.strip()))
    if not passed:
        return
    vectors = np.asarray(meaning.embed([text for _, _, text in passed]))
    for (request, answer, text), vector in zip(passed, vectors, strict=True):
        place = request.topic.place
        taken, near = outcome.taken.setdefault(place, []), outcome.vectors.setdefault(place, [])
        if any(bare(text) == bare(written.text) for written in taken) or meaning.duplicate(vector, near):
            _reject(outcome, request, text, "duplicate")
        elif reason := meaning.misplaced(request.topic, vector):
            _reject(outcome, request, text, reason)
        else:
            taken.append(Written(text, request.style, provider_name(writer), answer.model, request.key))
            near.append(vector)


def _reject(outcome: Outcome, request: Request, text: str, reason: str) -> None:
    shown = shortened(text)
    outcome.rejected.append(Rejected(request.topic, request.style, request.round, shown, reason, request.key))
