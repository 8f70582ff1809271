"""What a comment may say: bars on the beams of the language model, so that its words stay with what is recognised.

A small one praises what it is not told is sound, says "Try this: turn the contrast over" of harsh contrast, and gives a
weak photograph the verdict of a lovely one (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from transformers import (
    LogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PreTrainedTokenizerBase,
)

from calm.assistant.answers import remedies_of
from calm.assistant.recognition import Flaw, Settled
from calm.attributes.grammar import STANDINGS, Standing, clauses, leads, naming_rules, openings, states_named
from calm.attributes.taxonomy import taxonomy

BEAMS = 3  # of a comment: greedy decoding names fewer edits, and five beams no more (docs/experiments.md)
ONCE = 4  # tokens in a row that stand once in a comment: or a clause comes back in one of six (docs/experiments.md)
LEADS = {
    "noun": [*leads("noun"), "I also notice", "and I see", ", I see", ". I see"],
    "clause": leads("clause"),
    "remedy": leads("remedy"),
}
FURTHER = (",", "and")  # something more follows in a sentence


def barred(
    standings: Sequence[Standing], settled: Settled | None, tokenizer: PreTrainedTokenizerBase
) -> list[LogitsProcessor]:
    """What no comment may say: a clause twice, another's verdict, flaws, remedies and praise that it is not told of."""
    found: list[LogitsProcessor] = [NoRepeatNGramLogitsProcessor(ONCE)]
    if standings:
        found.append(Consistent(standings, tokenizer))
    return [*found, Truthful(settled, tokenizer)] if settled else found


class Consistent(LogitsProcessor):
    """Bars, from each photograph's beams, openings of comments whose verdict is not its standing."""

    def __init__(self, standings: Sequence[Standing], tokenizer: PreTrainedTokenizerBase) -> None:
        self._standings = standings
        begun = {one: tokenizer(openings(one), add_special_tokens=False).input_ids for one in STANDINGS}
        others = {one: [ids for other in STANDINGS if other != one for ids in begun[other]] for one in set(standings)}
        self._barred = {one: NoBadWordsLogitsProcessor(ids, tokenizer.eos_token_id) for one, ids in others.items()}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (photographs x BEAMS, words) of what follows `input_ids`, those of barred words -inf."""
        beams = zip(self._standings, input_ids.split(BEAMS), scores.split(BEAMS), strict=True)
        return torch.cat([self._barred[standing](said, of_beam) for standing, said, of_beam in beams])


class Truthful(LogitsProcessor):
    """Leaves each photograph's beams what `Blame` or `Praise` does.

    Of attributes that a model was trained with elsewhere, and this catalogue does not have, they may say anything.
    """

    def __init__(self, settled: Settled, tokenizer: PreTrainedTokenizerBase) -> None:
        known = {(attribute.name, state.name) for attribute in taxonomy().attributes for state in attribute.all_states}
        told = [[flaw for flaw in flaws if (flaw.attribute, flaw.state) in known] for flaws in settled.told]
        sound = [[name for name in praised if any(name == one for one, _ in known)] for praised in settled.praised]
        photographs = zip(told, sound, strict=True)
        self._speeches = [
            Blame(flaws, tokenizer) if flaws else Praise(praised, tokenizer) for flaws, praised in photographs
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (photographs x BEAMS, words) of what follows `input_ids`, those of barred words -inf."""
        scores = scores.clone()
        for beam, said in enumerate(input_ids.tolist()):
            if said:
                few, ended = self._speeches[beam // BEAMS].next_tokens(said)
                kept = scores[beam, few]
                scores[beam, slice(None) if few else ended] = -torch.inf
                scores[beam, few] = kept
        return scores


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
