"""Stage `generate_texts`: guidance texts for every attribute state and ways of asking, from the provider in params."""

from __future__ import annotations

import sys
from collections.abc import Sequence

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
from calm.writing import gate, prices, rounds
from calm.writing.chat import Key
from calm.writing.checks import Embed
from calm.writing.ledger import Ledger, ledger_name
from calm.writing.rounds import Outcome, Rejected, Shortfall, Written
from calm.writing.settings import OpenAIWriter
from calm.writing.topics import INSTRUCTION, Topic, hand_written, state_topics, task_topics

PROVIDER = "grammar"
CANONICAL = ("calm", "canonical")  # provider and model of the prompts that evaluation uses


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
    judged = gate.judge(guidance, embed)
    verdict = gate.metrics(judged, params.attributes.texts.gate.accuracy)
    write_table(layout.rejected_texts, rejected_frame(outcome.rejected), REJECTED_TEXT)
    write_json(layout.text_gate, verdict)
    with atomic_file(layout.text_confusion) as part:
        gate.confusion(judged).to_csv(part, index=False)
    if not verdict["passed"] and isinstance(params.attributes.texts.writer, OpenAIWriter):
        raise gate.failure(verdict)
    write_table(layout.prompts, prompt_frame(tasks, outcome), PROMPT)
    write_table(layout.texts, guidance, GUIDANCE)


def dry_run(params: Params, layout: Layout) -> str:
    """What a run would send and cost, in words. Nothing is sent, written, or asked of a text encoder."""
    writer = params.attributes.texts.writer
    if not isinstance(writer, OpenAIWriter):
        return "provider grammar: nothing is sent and nothing is paid"
    states, tasks = _topics(params, taxonomy())
    requests = rounds.open_requests(states + tasks, Outcome(), 0, writer)
    path = layout.ledger / ledger_name(writer.base_url)
    unanswered, spent = requests, 0.0
    if path.exists():
        with Ledger(path) as ledger:
            unanswered, spent = ledger.unanswered(requests), ledger.spent
    price = prices.price_of(writer)
    left = prices.cost_of(unanswered, writer, price)
    return prices.summary(writer, price, len(states), len(tasks), requests, left, spent)


def text_encoder(name: str) -> Embed:
    """The named sentence encoder."""
    from calm.model.parts.pretrained import load_text_encoder

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
            outcome = rounds.write(topics, writer, embed, ledger, _say)
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
