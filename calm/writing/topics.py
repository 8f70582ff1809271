"""What texts are wanted about: every state of every attribute, and every way of asking for an answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from ruamel.yaml import YAML

from calm.attributes.grammar import degree
from calm.attributes.taxonomy import Attribute, State, Taxonomy
from calm.instructions import PROMPTS

INSTRUCTION = "instruction"  # scope of the ways of asking
STYLES = ("photographer", "label", "beginner")
WAYS = ("question", "request")
PARAPHRASES = Path(__file__).parent / "paraphrases.yaml"


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
