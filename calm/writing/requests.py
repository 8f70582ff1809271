"""What texts are wanted about (topics), the requests for them to a chat model, and what is read from its answers.

Topics are every state of every attribute, and every way of asking for an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML

from calm.attributes.grammar import degree
from calm.attributes.taxonomy import Attribute, State, Taxonomy
from calm.instructions import PROMPTS
from calm.io import sha256_text
from calm.seeds import derive
from calm.writing.settings import OpenAIWriter

INSTRUCTION = "instruction"  # scope of the ways of asking
STYLES = ("photographer", "label", "beginner")
WAYS = ("question", "request")
PARAPHRASES = Path(__file__).parent / "paraphrases.yaml"
_VERSION = re.compile(r"\{# version: (\S+) #\}")
_FENCE = re.compile(r"\A\s*```(?:json)?\s*(.*?)\s*```\s*\Z", re.DOTALL)
_SEED_BITS = 31  # fits every server's integer


@dataclass(frozen=True)
class Topic:
    """One state of an attribute, or one task that is asked for.

    Attributes:
        scope: level of the attribute, or "instruction". Texts are told apart from those of the same scope.
        family: attribute, or "prompt".
        name: state, or task.
        words: what describes the topic: the catalogue's phrases and nouns, or prompts written by hand.
        remedies: what undoes a state; none for tasks and for "unchanged".
        wanted: number of distinct texts.
        styles: the texts are shared out among these, the first ones getting more.
    """

    scope: str
    family: str
    name: str
    words: tuple[str, ...]
    remedies: tuple[str, ...]
    wanted: int
    styles: tuple[str, ...]

    @property
    def place(self) -> tuple[str, str, str]:
        """(scope, family, name): identifies the topic."""
        return self.scope, self.family, self.name

    @property
    def path(self) -> str:
        """The place as one word, for people."""
        return "/".join(self.place)

    def shares(self) -> dict[str, int]:
        """How many texts each style should have; they add up to `wanted`."""
        each, rest = divmod(self.wanted, len(self.styles))
        return {style: each + (number < rest) for number, style in enumerate(self.styles)}


def state_topics(known: Taxonomy, per_state: int) -> list[Topic]:
    """Every state of the taxonomy, in its order."""
    return [_state_topic(one, state, per_state) for one in known.attributes for state in one.all_states]


def task_topics(paraphrases: int) -> list[Topic]:
    """Every task with a prompt. One of the `paraphrases` is the prompt itself, which nobody has to write."""
    return [
        Topic(INSTRUCTION, "prompt", task, (prompt, *hand_written(task)), (), paraphrases - 1, WAYS)
        for task, prompt in PROMPTS.items()
    ]


def hand_written(task: str) -> list[str]:
    """Every paraphrase of a task's prompt that `paraphrases.yaml` can give, without the prompt itself."""
    found = _paraphrases()
    made = (
        opening.format(do=do, Do=do[0].upper() + do[1:])
        for do, opening in product(found["tasks"][task], found["openings"])
    )
    return [text for text in dict.fromkeys(made) if text != PROMPTS[task]]


def _state_topic(attribute: Attribute, state: State, wanted: int) -> Topic:
    words = (*(degree(phrase, None) for phrase in state.phrases), *state.nouns)
    return Topic(attribute.level, attribute.name, state.name, words, state.remedies, wanted, STYLES)


@cache
def _paraphrases() -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = YAML(typ="safe").load(PARAPHRASES.read_text(encoding="utf-8"))
    return found


def by_scope(topics: Iterable[Topic]) -> dict[str, list[Topic]]:
    """Topics that compete for a text, in their order."""
    found: dict[str, list[Topic]] = {}
    for topic in topics:
        found.setdefault(topic.scope, []).append(topic)
    return found


TEMPLATES = Path(__file__).parent / "templates"


class Texts(BaseModel):
    """The JSON that an answer must be."""

    model_config = ConfigDict(strict=True, extra="forbid")

    texts: list[str]


@dataclass(frozen=True)
class Request:
    """One request for `count` texts of a topic in one style.

    Attributes:
        template: version of the template that the messages were made with.
        body: what is sent to `/chat/completions`.
        key: sha256 of body (model, messages, decoding arguments) and template: its name in the ledger.
    """

    topic: Topic
    style: str
    count: int
    round: int
    template: str
    body: dict[str, Any]
    key: str


@dataclass(frozen=True)
class Answer:
    """What a model answered, as far as it matters.

    Attributes:
        finish: the API's `finish_reason`.
        model: the model that the server says has answered.
    """

    content: str | None
    refusal: str | None
    finish: str | None
    model: str


def requests_of(
    topic: Topic, style: str, missing: int, avoid: Sequence[str], round_: int, writer: OpenAIWriter
) -> list[Request]:
    """Requests for the texts that a style still lacks, `texts_per_request` at a time."""
    found = []
    for part, start in enumerate(range(0, missing, writer.texts_per_request)):
        count = min(writer.texts_per_request, missing - start)
        template, messages = render(topic, style, count, avoid, writer.checks.max_words)
        body: dict[str, Any] = {
            "model": writer.model,
            "messages": messages,
            "temperature": writer.temperature,
            "seed": derive(writer.seed, *topic.place, style, round_, part) % 2**_SEED_BITS,
            writer.token_limit: writer.max_tokens,
        }
        if writer.answer_format != "text":
            body["response_format"] = _response_format(writer.answer_format)
        key = sha256_text(json.dumps([template, body], sort_keys=True, ensure_ascii=False))
        found.append(Request(topic, style, count, round_, template, body, key))
    return found


def render(
    topic: Topic, style: str, count: int, avoid: Sequence[str], max_words: int
) -> tuple[str, list[dict[str, str]]]:
    """Version and messages; an attribute with a file of its own in `templates/guidance/` is asked for by that."""
    environment, manners = _templates()
    names = ["instruction.j2"] if topic.scope == INSTRUCTION else [f"guidance/{topic.family}.j2", "guidance.j2"]
    asked = environment.select_template(names)
    said = {"style": style, "manner": manners[style], "count": count, "avoid": list(avoid), "max_words": max_words}
    messages = [
        {"role": "system", "content": environment.get_template("system.j2").render().strip()},
        {"role": "user", "content": asked.render(asdict(topic), **said).strip()},
    ]
    return version_of(str(asked.name)), messages


def version_of(template: str) -> str:
    """The version that a template's first line states."""
    found = _VERSION.match((TEMPLATES / template).read_text(encoding="utf-8"))
    assert found, f"{template} does not begin with its version"
    return found.group(1)


def read_answer(answer: Answer, count: int) -> tuple[list[str], str | None]:
    """At most `count` texts of an answer, or none and the reason why it has none."""
    if answer.refusal or answer.finish == "content_filter":
        return [], "refusal"
    if not (answer.content or "").strip():
        return [], "empty answer"
    if answer.finish == "length":
        return [], "answer cut off at max_tokens"
    fenced = _FENCE.match(answer.content or "")
    try:
        texts = Texts.model_validate_json(fenced.group(1) if fenced else answer.content or "").texts
    except ValidationError:
        return [], "answer is not the JSON asked for"
    return texts[:count], None


def _response_format(kind: str) -> dict[str, Any]:
    if kind == "json_object":
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": "texts", "strict": True, "schema": Texts.model_json_schema()},
    }


@cache
def _templates() -> tuple[Environment, dict[str, str]]:
    # Nothing here is HTML: escaping would change the words.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    manners: dict[str, str] = YAML(typ="safe").load((TEMPLATES / "styles.yaml").read_text(encoding="utf-8"))
    return environment, manners
