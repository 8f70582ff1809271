"""Stage `generate_texts`: guidance texts for every attribute state and ways of asking, from the provider in params.

Texts from a language model are asked for, checked, and asked for again until there are enough.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from calm.attributes.grammar import GRAMMAR, all_guidance
from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.data.store.tables import GUIDANCE, PROMPT, REJECTED_TEXT
from calm.instructions import PROMPTS
from calm.io import atomic_file, sha256_text, write_json, write_table
from calm.layout import Layout
from calm.params import Params
from calm.seeds import stream
from calm.writing import WritingError, batch, chat
from calm.writing.chat import Key, required_key
from calm.writing.checks import Embed, Meaning, Rules, bare, confusion, failure, judge, metrics, most_common, shortened
from calm.writing.ledger import AVOIDED, Ledger, ceiling, cost_of, ledger_name, price_of, summary, within_budget
from calm.writing.requests import (
    INSTRUCTION,
    Answer,
    Request,
    Topic,
    hand_written,
    read_answer,
    requests_of,
    state_topics,
    task_topics,
)
from calm.writing.settings import OpenAIWriter

PROVIDER = "grammar"
CANONICAL = ("calm", "canonical")  # provider and model of the prompts that evaluation uses
_LISTED = 5


def generate_texts(params: Params, layout: Layout, embed: Embed | None = None, known: Taxonomy | None = None) -> None:
    """Write guidance texts, ways of asking, what was rejected, and the quality gate's verdict, below `data/texts/`.

    Args:
        embed: the text encoder; that of `parts.text` unless given.

    Raises:
        ValueError: the provider has too few texts.
        WritingError: a model's answers could not be had, or its texts fail the gate. Texts of the grammar that fail are
            written all the same: the metric says so.
    """
    known = known or taxonomy()
    embed = embed or text_encoder(params.parts.text)
    states, tasks = _topics(params, known)
    outcome = _written(params, layout, states + tasks, embed, known)
    guidance = guidance_frame(states, outcome)
    judged = judge(guidance, embed)
    verdict = metrics(judged, params.attributes.texts.gate.accuracy)
    write_table(layout.rejected_texts, rejected_frame(outcome.rejected), REJECTED_TEXT)
    write_json(layout.text_gate, verdict)
    with atomic_file(layout.text_confusion) as part:
        confusion(judged).to_csv(part, index=False)
    if not verdict["passed"] and isinstance(params.attributes.texts.writer, OpenAIWriter):
        raise failure(verdict)
    write_table(layout.prompts, prompt_frame(tasks, outcome), PROMPT)
    write_table(layout.texts, guidance, GUIDANCE)


def dry_run(params: Params, layout: Layout) -> str:
    """What a run would send and cost, in words. Nothing is sent, written, or asked of a text encoder."""
    writer = params.attributes.texts.writer
    if not isinstance(writer, OpenAIWriter):
        return "provider grammar: nothing is sent and nothing is paid"
    states, tasks = _topics(params, taxonomy())
    requests = open_requests(states + tasks, Outcome(), 0, writer)
    path = layout.ledger / ledger_name(writer.base_url)
    unanswered, spent = requests, 0.0
    if path.exists():
        with Ledger(path) as ledger:
            unanswered, spent = ledger.unanswered(requests), ledger.spent
    price = price_of(writer)
    left = cost_of(unanswered, writer, price)
    return summary(writer, price, len(states), len(tasks), requests, left, spent)


def text_encoder(name: str) -> Embed:
    """The named sentence encoder."""
    from calm.model.pretrained import load_text_encoder

    encoder = load_text_encoder(name)

    def embed(texts: Sequence[str]) -> np.ndarray:
        vectors: np.ndarray = encoder.embed(list(texts)).numpy()
        return vectors

    return embed


def by_grammar(topic: Topic, seed: int, known: Taxonomy) -> list[Written]:
    """`topic.wanted` of all texts that the offline grammar has, by seed: synthetic and free.

    Raises:
        ValueError: it has fewer.
    """
    _, family, name = topic.place
    asking = topic.scope == INSTRUCTION
    choices = hand_written(name) if asking else all_guidance(family, name, known)
    if len(choices) < topic.wanted:
        key, place = (
            ("instructions.paraphrases", "calm/writing/paraphrases.yaml")
            if asking
            else ("attributes.texts.per_state", "the attribute's file")
        )
        raise ValueError(
            f"the grammar has only {len(choices)} texts for '{name}' of '{family}': lower {key} so that at most as "
            f"many are wanted (now {topic.wanted}), or add words to {place}"
        )
    order = stream(seed, "guidance", family, name).permutation(len(choices))[: topic.wanted]
    asked = sha256_text("\n".join((GRAMMAR, *topic.place)))
    return [Written(choices[index], "", PROVIDER, GRAMMAR, asked) for index in order]


def guidance_frame(topics: Sequence[Topic], outcome: Outcome) -> pd.DataFrame:
    """Rows of GUIDANCE, by the order of the taxonomy and within a state by style."""
    return pd.DataFrame(
        [(*topic.place, *_row(written)) for topic in topics for written in _ordered(topic, outcome)],
        columns=GUIDANCE.names,
    )


def prompt_frame(topics: Sequence[Topic], outcome: Outcome) -> pd.DataFrame:
    """Rows of PROMPT: for each task the prompt that evaluation uses, then the paraphrases."""
    rows = []
    for topic in topics:
        canonical = Written(PROMPTS[topic.name], "", *CANONICAL, sha256_text(PROMPTS[topic.name]))
        rows += [(topic.name, *_row(written)) for written in (canonical, *_ordered(topic, outcome))]
    return pd.DataFrame(rows, columns=PROMPT.names)


def rejected_frame(rejected: Sequence[Rejected]) -> pd.DataFrame:
    """Rows of REJECTED_TEXT, in the order of rounds and topics."""
    rows = [(*one.topic.place, one.style, one.round, one.text, one.reason, one.request) for one in rejected]
    return pd.DataFrame(rows, columns=REJECTED_TEXT.names)


def _topics(params: Params, known: Taxonomy) -> tuple[list[Topic], list[Topic]]:
    return state_topics(known, params.attributes.texts.per_state), task_topics(params.instructions.paraphrases)


def _written(params: Params, layout: Layout, topics: Sequence[Topic], embed: Embed, known: Taxonomy) -> Outcome:
    """Ask the provider in params."""
    writer = params.attributes.texts.writer
    if not isinstance(writer, OpenAIWriter):
        return Outcome({topic.place: by_grammar(topic, params.seed, known) for topic in topics})
    key = Key.from_environment()
    hide = key.hide if key else str
    with Ledger(layout.ledger / ledger_name(writer.base_url), hide) as ledger:
        if ledger.torn:
            _say(f"{ledger.path}: {ledger.torn} torn lines passed over; what they were about is asked again")
        try:
            outcome = write_in_rounds(topics, writer, embed, ledger, _say)
        except Shortfall as error:
            write_table(layout.rejected_texts, rejected_frame(error.outcome.rejected), REJECTED_TEXT)
            raise
        _say(f"{len(topics)} topics written, {len(outcome.rejected)} rejections, {ledger.spent:.2f} USD in the ledger")
    return outcome


def _ordered(topic: Topic, outcome: Outcome) -> list[Written]:
    """A topic's texts by style; those of one style as they were taken."""
    styles = ["", *topic.styles]
    return sorted(outcome.taken.get(topic.place, []), key=lambda written: styles.index(written.style))


def _row(written: Written) -> tuple[str, ...]:
    return written.text, written.provider, written.model, written.request, sha256_text(written.text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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


def write_in_rounds(
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
