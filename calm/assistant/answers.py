"""What `Calm` says of one photograph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calm.attributes.grammar import Standing, standing_at
from calm.attributes.taxonomy import taxonomy
from calm.instructions import COMMENT_PROMPT, SCORE_PROMPT, SUGGESTION_PROMPT, as_public

if TYPE_CHECKING:
    from PIL.Image import Image

    from calm.assistant.assistant import Calm
    from calm.assistant.inputs import Photographs

SUGGESTION_FORM = "I would {remedy}."
LEAVE = "Leave it as it is."


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
