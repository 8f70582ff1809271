"""What the page knows of each photograph, in which order it shows them, and as a csv."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calm.attributes import LEVELS
from calm.report.plots import overlay, photograph

if TYPE_CHECKING:
    from PIL.Image import Image

    from calm.assistant import Calm, Score, Suggestion

# Pooled features (N, F), generic scores (N,) and a person's scores by row to that person's score of every row (N,).
Personal = Callable[[NDArray[np.float32], NDArray[np.float64], Mapping[int, float]], Sequence[float]]


@dataclass(frozen=True)
class Card:
    """One photograph and what the model says of it; images are data URIs, so nothing is left on the server's disk."""

    name: str
    image: str
    overlays: tuple[tuple[str, str], ...]  # (level, data URI)
    score: Score
    comment: str
    suggestions: Sequence[Suggestion]
    pooled: NDArray[np.float32]  # (F,)


@dataclass
class Sitting:
    """One visit: cards in the order in which they came, and by the same rows the scores that the visitor gave."""

    cards: list[Card] = field(default_factory=list)
    given: dict[int, float] = field(default_factory=dict)
    own: Sequence[float] | None = None  # the visitor's score of every card, where they have asked for it

    def order(self) -> list[int]:
        """Rows, best first: by the visitor's own scores where there are such."""
        scores = [card.score.regression for card in self.cards] if self.own is None else self.own
        return sorted(range(len(self.cards)), key=lambda row: -scores[row])

    def personalise(self, personal: Personal) -> None:
        """Score every card as the visitor would.

        Raises:
            ValueError: `personal` cannot learn from what was given.
        """
        pooled = np.array([card.pooled for card in self.cards])
        self.own = personal(pooled, np.array([card.score.regression for card in self.cards]), self.given)

    def table(self, made_by: Mapping[str, str]) -> str:
        """A csv, a line for each card in the order of the page."""
        lines = [
            {
                "file": card.name,
                "score": card.score.regression,
                "percentile": card.score.percentile,
                "spread": card.score.spread,
                "comment": card.comment,
                "suggestions": " ".join(f"{one.text} ({one.probability:.0%})" for one in card.suggestions),
                "given": self.given.get(row),
                "own": None if self.own is None else self.own[row],
                **made_by,
            }
            for row, card in ((row, self.cards[row]) for row in self.order())
        ]
        return pd.DataFrame(lines).to_csv(index=False)


def look(calm: Calm, images: Sequence[tuple[str, Image]], public: str | None) -> list[Card]:
    """What the model says of photographs, which are given with their names."""
    pictures = [image for _, image in images]
    maps = calm.attention(pictures)
    answers = zip(
        images,
        calm.score(pictures, public=public),
        calm.comment(pictures),
        calm.suggest(pictures),
        calm.pooled_features(pictures),
        strict=True,
    )
    return [
        Card(
            name,
            photograph(image),
            tuple((level, overlay(image, maps[level][row])) for level in LEVELS),
            score,
            comment,
            suggestions,
            pooled,
        )
        for row, ((name, image), score, comment, suggestions, pooled) in enumerate(answers)
    ]
