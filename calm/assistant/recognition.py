"""What is recognised in photographs, by name, and what of it stands.

Edits teach states that people's pictures seldom are in. The Q-formers take textures for stretched pictures, tiles and
tracks for horizons that hang, what is seen from above for what lies on its side. So a rare state has to be sure, and a
turned picture has to look as it should once it is turned back, and a tilted one to tilt still if it is turned on: tiles
look much the same in any copy (docs/experiments.md). And black and white is no flaw: photographers choose it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import cos, radians, sin

import torch
from PIL import Image

from calm.attributes.taxonomy import State, taxonomy
from calm.model.heads import Recogniser, Row, attribute_rows, passing
from calm.model.mfam import LevelTokens
from calm.model.modeling import CalmForConditionalGeneration

SURE = 0.9  # least probability of a rare state, and of what turned copies have to show (docs/experiments.md)


def named(recogniser: Recogniser, similarities: torch.Tensor) -> list[list[tuple[str, str, float]]]:
    """(attribute, state, probability) of each attribute's likeliest change, likeliest first, of similarities (B, S)."""
    rows, values = recogniser.likeliest(similarities)
    return [
        [(*recogniser.table[row][1:], value) for row, value in zip(*photograph, strict=True)]
        for photograph in zip(rows.tolist(), values.tolist(), strict=True)
    ]


def shares(table: Sequence[Row], similarities: torch.Tensor) -> dict[str, dict[str, float]]:
    """Attribute -> state -> share, as if an attribute's states were equally common; similarities (S,)."""
    found: dict[str, dict[str, float]] = {}
    for rows in attribute_rows(table):
        names = [table[row][2] for row in rows]
        found[table[rows[0]][1]] = dict(zip(names, similarities[rows].softmax(-1).tolist(), strict=True))
    return found


@dataclass(frozen=True)
class Flaw:
    """A state that a photograph is told to be in.

    Attributes:
        turn: degrees clockwise by which the picture has to be turned; None of what no turn undoes.
    """

    attribute: str
    state: str
    probability: float
    turn: float | None = None


@dataclass(frozen=True)
class Settled:
    """What stands of what is recognised in B photographs.

    Attributes:
        rows: (B, told_states), of the states whose words the language model is shown (`Recogniser.told`).
        told: what each photograph is told of, likeliest first.
        praised: attributes that are surest to be as they should be, of a photograph that is told of no flaw.
        sound: of each, the probability that nothing is wrong.
    """

    rows: torch.Tensor
    told: Sequence[Sequence[Flaw]]
    praised: Sequence[Sequence[str]]
    sound: Sequence[float]


@dataclass(frozen=True)
class Checked:
    """A model's recognition that has to be sure of what is rare, and has to see a turn in turned copies.

    Attributes:
        look: what the encoder says of pictures.
    """

    model: CalmForConditionalGeneration
    look: Callable[[Sequence[Image.Image]], LevelTokens]

    def settled(self, tokens: LevelTokens, pictures: Sequence[Image.Image]) -> Settled:
        """What stands of what would be told. Only pictures that seem to be turned are looked at again.

        Raises:
            UncalibratedError: the checkpoint was trained by an earlier calm.
        """
        config, recogniser = self.model.config, self._recogniser
        doubted, turns = _doubted(recogniser.table), [dict[str, float]() for _ in pictures]
        similarities = self.model.mfam.similarities(tokens)
        rows, probabilities = recogniser.likeliest(similarities)
        told = (probabilities >= config.told_further) & (probabilities[:, :1] >= config.told_probability)
        for number, place in told.nonzero().tolist():
            row = int(rows[number, place])
            if (state := doubted.get(row)) is None:
                continue
            stands = not state.rare or float(probabilities[number, place]) >= SURE
            if stands and state.turned_back:
                turn = self._turn(state, row, pictures[number])
                if stands := turn is not None:
                    turns[number][recogniser.table[row][1]] = turn
            if not stands:
                similarities[number, recogniser.changes(row)] = -torch.inf
        _, probabilities = recogniser.likeliest(similarities)
        counts = passing(probabilities, config.told_probability, config.told_further).tolist()
        flaws = [
            [Flaw(attribute, state, likely, of.get(attribute)) for attribute, state, likely in states[:count]]
            for states, count, of in zip(named(recogniser, similarities), counts, turns, strict=True)
        ]
        rows = recogniser.told(similarities, config.told_states, config.told_probability, config.told_further)
        praised = [
            [] if of else [recogniser.table[row][1] for row in told if row < len(recogniser.table)]
            for of, told in zip(flaws, rows.tolist(), strict=True)
        ]
        return Settled(rows, flaws, praised, (1 - probabilities.double()).prod(-1).tolist())

    @property
    def _recogniser(self) -> Recogniser:
        recogniser = Recogniser.of(self.model.config)
        chosen = {(one.name, state.name) for one in taxonomy().attributes for state in one.states if state.chosen}
        rows = frozenset(row for row, (_, *name) in enumerate(recogniser.table) if tuple(name) in chosen)
        return replace(recogniser, chosen=rows)

    def _turn(self, state: State, row: int, picture: Image.Image) -> float | None:
        """By how many degrees the picture has to be turned back; None where copies do not show that it is turned."""
        copies = [turned(picture, degrees) for degrees in (*state.turned_back, *state.turned_on)]
        recogniser = Recogniser.of(self.model.config)
        found = recogniser.probabilities(self.model.mfam.similarities(self.look(copies)))
        back, on = found.split([len(state.turned_back), len(state.turned_on)])
        right = 1 - back[:, recogniser.changes(row)].sum(-1)
        shown = bool((right >= SURE).any() and (on[:, row] >= SURE).all())
        return state.turned_back[int(right.argmax())] if shown else None

    def telling(self, tokens: LevelTokens, settled: Settled) -> torch.Tensor:
        """What the language model is shown of photographs, (B, N, D): its words are of what stands."""
        return self.model.mfam(tokens, settled.rows.tolist())


def _doubted(table: Sequence[Row]) -> dict[int, State]:
    """Rows of the states that are rare, or that turned copies can show."""
    rows = {(attribute, state): row for row, (_, attribute, state) in enumerate(table)}
    known = [((attribute.name, state.name), state) for attribute in taxonomy().attributes for state in attribute.states]
    return {rows[name]: state for name, state in known if name in rows and (state.rare or state.turned_back)}


def turned(picture: Image.Image, degrees: float) -> Image.Image:
    """Turned clockwise; but for quarters, what is left in the middle without empty corners, in the same proportions."""
    if degrees % 90 == 0:
        return picture.rotate(-degrees, expand=True)
    width, height = picture.size
    along, across = abs(cos(radians(degrees))), abs(sin(radians(degrees)))
    zoom = along + across * max(width / height, height / width)
    left, top = (side * (1 - 1 / zoom) / 2 for side in picture.size)
    box = (round(left), round(top), round(width - left), round(height - top))
    return picture.rotate(-degrees, Image.Resampling.BICUBIC).crop(box)
