"""What `Calm` says of one photograph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calm.attributes.grammar import (
    STANDINGS,
    Standing,
    clauses,
    leads,
    naming_rules,
    openings,
    standing_at,
    states_named,
)
from calm.attributes.taxonomy import taxonomy
from calm.instructions import COMMENT_PROMPT, SCORE_PROMPT, SUGGESTION_PROMPT, as_public

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import LogitsProcessor, PreTrainedTokenizerBase

    from calm.assistant.assistant import Calm
    from calm.assistant.inputs import Photographs
    from calm.assistant.recognition import Flaw, Settled

SUGGESTION_FORM = "I would {remedy}."
LEAVE = "Leave it as it is."
BEAMS = 3  # of a comment: greedy decoding names fewer edits, and five beams no more (docs/experiments.md)
ONCE = 4  # tokens in a row that stand once in a comment: or a clause comes back in one of six (docs/experiments.md)
LEADS = {
    "noun": [*leads("noun"), "I also notice", "and I see", ", I see", ". I see"],
    "clause": leads("clause"),
    "remedy": leads("remedy"),
}
FURTHER = (",", "and")  # something more follows in a sentence


@dataclass(frozen=True)
class Score:
    """One photograph's score, read in three ways, on `Calm.score_range`.

    Attributes:
        text: the number in the model's answer; None if the answer holds none, or was not asked for.
        expectation: probability-weighted over the digits of the first answer token.
        regression: of the head on the language model's last state and, where it has that part, on the visual tokens.
        raw: the answer itself.
        distribution: shares of the steps 1 to 10 of the scale; their mean is `expectation`.
        percentile: how many of 100 photographs this public gave less than `regression`, among those that the model
            learnt its taste from; None where the model does not say.
    """

    text: float | None
    expectation: float
    regression: float
    raw: str
    distribution: tuple[float, ...]
    percentile: float | None = None

    @property
    def spread(self) -> float:
        """Standard deviation of the distribution, in points: how far apart the model thinks that people would be."""
        steps = np.arange(1, len(self.distribution) + 1)
        return float(np.sqrt(np.square(steps - self.expectation) @ self.distribution))


@dataclass(frozen=True)
class Suggestion:
    """One way to improve a photograph, or the advice to leave it alone.

    Attributes:
        attribute, state: what is taken to be wrong; None where nothing is.
        text: what to do about it.
        probability: that the photograph is in this state; that it is in none, where nothing is wrong.
    """

    attribute: str | None
    state: str | None
    text: str
    probability: float


@dataclass(frozen=True)
class Remedy:
    """A remedy of the taxonomy as the language model alone judges it.

    Attributes:
        log_odds: how much likelier the model finds its text with the photograph than without any, per token.
    """

    attribute: str
    state: str
    text: str
    log_odds: float


def remedies_of(attribute: str, state: str, turn: float | None = None) -> Sequence[str]:
    """What undoes a state; for a picture that has to be turned, by how many degrees, to the right if above 0."""
    if turn is None:
        return taxonomy().attribute(attribute).state(state).remedies
    side = "" if abs(turn) == 180 else " to the right" if turn > 0 else " to the left"
    about = "" if turn % 90 == 0 else "some "
    return [f"turn the picture by {about}{abs(turn):g} degrees{side}"]


def suggested(attribute: str, state: str, turn: float | None = None) -> list[str]:
    """What can be suggested for a state (`remedies_of`)."""
    return [SUGGESTION_FORM.format(remedy=remedy) for remedy in remedies_of(attribute, state, turn)]


def own_standings(calm: Calm, images: Photographs, batch_size: int) -> list[Standing]:
    """Where each photograph's score puts it among others; empty for a model that has learnt no verdicts."""
    if not calm.model.config.verdicts:
        return []
    scores = calm.score(images, batch_size, written=False)
    return [standing_at((score.percentile or 0) / 100) for score in scores]


def barred(
    standings: Sequence[Standing], settled: Settled | None, tokenizer: PreTrainedTokenizerBase
) -> list[LogitsProcessor]:
    """What no comment may say: a clause twice, another's verdict, flaws, remedies and praise that it is not told of."""
    from transformers import NoRepeatNGramLogitsProcessor

    found: list[LogitsProcessor] = [NoRepeatNGramLogitsProcessor(ONCE)]
    if standings:
        found.append(consistent(standings, tokenizer))
    return [*found, truthful(settled, tokenizer)] if settled else found


def truthful(settled: Settled, tokenizer: PreTrainedTokenizerBase) -> LogitsProcessor:
    """Leaves each photograph's beams what `Blame` or `Praise` does.

    Of attributes that a model was trained with elsewhere, and this catalogue does not have, they may say anything.
    """
    import torch
    from transformers import LogitsProcessor

    known = {(attribute.name, state.name) for attribute in taxonomy().attributes for state in attribute.all_states}
    told = [[flaw for flaw in flaws if (flaw.attribute, flaw.state) in known] for flaws in settled.told]
    sound = [[name for name in praised if any(name == one for one, _ in known)] for praised in settled.praised]
    photographs = zip(told, sound, strict=True)
    speeches = [Blame(flaws, tokenizer) if flaws else Praise(praised, tokenizer) for flaws, praised in photographs]

    class Truthful(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            scores = scores.clone()
            for beam, said in enumerate(input_ids.tolist()):
                if said:
                    few, ended = speeches[beam // BEAMS].next_tokens(said)
                    kept = scores[beam, few]
                    scores[beam, slice(None) if few else ended] = -torch.inf
                    scores[beam, few] = kept
            return scores

    return Truthful()


class Blame:
    """A comment on one photograph with flaws: it names these alone, each once, and goes on with what undoes one.

    A small language model says "Try this: turn the contrast over" of harsh contrast (docs/experiments.md).
    """

    def __init__(self, flaws: Sequence[Flaw], tokenizer: PreTrainedTokenizerBase) -> None:
        self._flaws, self._tokenizer, self._rules = flaws, tokenizer, naming_rules(taxonomy())
        (self._stop,) = self._ids(["."])
        spaced = {kind: [f"{space}{one}" for one in of for space in ("", " ")] for kind, of in LEADS.items()}
        self._leads = {kind: self._ids(of) for kind, of in spaced.items()}
        self._further = self._ids([*FURTHER, *(f" {one}" for one in FURTHER)])

    def next_tokens(self, said: list[int]) -> tuple[list[int], list[int]]:
        """The tokens that alone may follow (none: any may), and those that may not."""
        if few := self._going_on(said):
            return few, []
        if self._unnamed(said):
            return [], []
        rest = said[_end(said, self._stop) :]  # of the sentence; a new one says what to do
        few = _next(rest, self._leads["remedy"]) + [self._tokenizer.eos_token_id] * (not rest)
        return few, [one[-1] for one in self._further if said[len(said) + 1 - len(one) :] == one[:-1]]

    def _going_on(self, said: list[int]) -> list[int]:
        """Tokens by which what was begun can go on; none where nothing was."""
        end, kind = max((_end(said, lead), kind) for kind, of in self._leads.items() for lead in of)
        if not end:
            return []
        if kind == "remedy":
            words = [f"{one}." for flaw in self._flaws for one in remedies_of(flaw.attribute, flaw.state, flaw.turn)]
        else:
            states = [taxonomy().attribute(flaw.attribute).state(flaw.state) for flaw in self._unnamed(said[:end])]
            words = [one for state in states for one in (clauses(state) if kind == "clause" else state.nouns[:1])]
        return _next(said[end:], self._ids(f" {one}" for one in words))

    def _unnamed(self, said: list[int]) -> list[Flaw]:
        named = states_named(self._tokenizer.decode(said), self._rules)
        return [flaw for flaw in self._flaws if f"{flaw.attribute}: {flaw.state}" not in named]

    def _ids(self, texts: Iterable[str]) -> list[list[int]]:
        return [self._tokenizer(text, add_special_tokens=False).input_ids for text in texts]


class Praise:
    """A comment on one photograph without flaws: of what is in order it says what it is told, as the catalogue does."""

    def __init__(self, attributes: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        def ids(texts: Iterable[str]) -> list[list[int]]:
            return [tokenizer(text, add_special_tokens=False).input_ids for text in texts]

        self._leads, self._joints, (self._stop,) = ids([":", " although"]), ids([",", " and"]), ids(["."])
        sound = {name: taxonomy().attribute(name).unchanged.phrases for name in attributes}
        self._phrases = {name: ids(f" {phrase}" for phrase in phrases) for name, phrases in sound.items()}

    def next_tokens(self, said: list[int]) -> tuple[list[int], list[int]]:
        """The tokens that alone may follow (none: any may), and those that may not."""
        end = max(_end(said, lead) for lead in self._leads)
        return (sorted(self._after(said[end:], [*self._phrases])) if end else []), []

    def _after(self, rest: list[int], left: Sequence[str]) -> set[int]:
        """Tokens after the beginning of a list of clauses, one of each attribute that is left."""
        found: set[int] = set()
        for name in left:
            others = [other for other in left if other != name]
            joints = [*self._joints, self._stop] if others else [self._stop]
            for phrase in self._phrases[name]:
                found.update(_next(rest, [phrase]))
                if rest[: len(phrase)] == phrase:
                    found.update(_next(rest[len(phrase) :], joints))
                    for joint in self._joints:
                        if rest[len(phrase) : len(phrase) + len(joint)] == joint:
                            found |= self._after(rest[len(phrase) + len(joint) :], others)
        return found


def _next(rest: Sequence[int], whole: Sequence[Sequence[int]]) -> list[int]:
    """Tokens by which what was begun goes on to one of several."""
    return sorted({one[len(rest)] for one in whole if len(rest) < len(one) and one[: len(rest)] == rest})


def _end(said: Sequence[int], lead: Sequence[int]) -> int:
    """Where a lead ends that was said last; 0 where it was not."""
    starts = range(len(said) - len(lead), -1, -1)
    return next((start + len(lead) for start in starts if said[start : start + len(lead)] == lead), 0)


def consistent(standings: Sequence[Standing], tokenizer: PreTrainedTokenizerBase) -> LogitsProcessor:
    """Bars, from each photograph's beams, openings of comments whose verdict is not its standing."""
    import torch
    from transformers import LogitsProcessor, NoBadWordsLogitsProcessor

    begun = {one: tokenizer(openings(one), add_special_tokens=False).input_ids for one in STANDINGS}
    others = {one: [ids for other in STANDINGS if other != one for ids in begun[other]] for one in set(standings)}
    barred = {one: NoBadWordsLogitsProcessor(ids, tokenizer.eos_token_id) for one, ids in others.items()}

    class Consistent(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            beams = zip(standings, input_ids.split(BEAMS), scores.split(BEAMS), strict=True)
            return torch.cat([barred[standing](said, of_beam) for standing, said, of_beam in beams])

    return Consistent()


def in_words(calm: Calm, public: str | None = None) -> Mapping[str, Callable[[Sequence[Image]], list[str]]]:
    """What other programs can ask a model, with what says it of photographs in one text each.

    Args:
        public: whose taste is asked for where a question names none.
    """

    def score(of: str | None) -> Callable[[Sequence[Image]], list[str]]:
        return lambda images: [score.raw for score in calm.score(images, public=of)]

    def suggest(images: Sequence[Image]) -> list[str]:
        return ["\n".join(one.text for one in suggestions) for suggestions in calm.suggest(images)]

    return {
        **{as_public(SCORE_PROMPT, name): score(name) for name in calm.publics},
        SCORE_PROMPT: score(public),
        COMMENT_PROMPT: calm.comment,
        SUGGESTION_PROMPT: suggest,
    }
