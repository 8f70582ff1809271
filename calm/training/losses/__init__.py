"""Losses of the self-supervision: a file each, found by its name, that ends in a `LOSS`; and what they know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
import torch

from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.data.store.text import clean, escape_markers
from calm.model.build import Assembly
from calm.model.heads import UNCHANGED
from calm.settings import checked, defined
from calm.training.features import View
from calm.training.settings import LossSettings

MOST_CHARACTERS = 400  # of one text
Settings = TypeVar("Settings", bound=LossSettings)


class TextBank:
    """Guidance texts by attribute and state.

    Whoever wrote them, they are data: control characters leave, the openings of special tokens are made harmless, long
    texts are cut, empty ones are left out.

    Args:
        frame: rows of `calm.data.store.tables.GUIDANCE`.

    Raises:
        ValueError: a state of the taxonomy has no text, or a row names one that it does not have.
    """

    def __init__(self, frame: pd.DataFrame, known: Taxonomy | None = None) -> None:
        self.taxonomy = known or taxonomy()
        self._texts: dict[tuple[str, str], list[str]] = {}
        for attribute, state, text in zip(frame["attribute"], frame["state"], frame["text"], strict=True):
            if safe := escape_markers(clean(text, MOST_CHARACTERS)):
                self._texts.setdefault((attribute, state), []).append(safe)
        for attribute, state in self._texts:
            self.taxonomy.attribute(attribute).state(state)
        missing = [f"{attribute}.{state}" for attribute, state in self.states if (attribute, state) not in self._texts]
        if missing:
            raise ValueError(f"no guidance texts for {', '.join(missing)}: run `calm generate-texts` again")

    @property
    def states(self) -> list[tuple[str, str]]:
        """(attribute, state) of the whole taxonomy, in its order, unchanged first within an attribute."""
        return [(one.name, state.name) for one in self.taxonomy.attributes for state in one.all_states]

    def texts(self, attribute: str, state: str) -> list[str]:
        """Texts of one state, in the order of the table.

        Raises:
            ValueError: the taxonomy has no such attribute or state.
        """
        self.taxonomy.attribute(attribute).state(state)
        return list(self._texts[attribute, state])

    def __len__(self) -> int:
        return sum(map(len, self._texts.values()))


@dataclass(frozen=True)
class Known:
    """What all steps share.

    Attributes:
        table: (level, attribute, state) of every attribute state: the rows of the prototypes.
        log_priors: (S,) log of how often a view leaves an attribute in each of its states, in the table's order.
        embedded: (texts, width) of the guidance texts of each (attribute, state).
    """

    assembly: Assembly
    bank: TextBank
    table: Sequence[tuple[str, str, str]]
    log_priors: torch.Tensor
    embedded: dict[tuple[str, str], torch.Tensor]


@dataclass(frozen=True)
class Step:
    """A part of a step, which several processes may share.

    Attributes:
        views: what was done to every photograph of the whole step.
        own: which of them are this part's.
        states: query states (own, queries, width) by level.
        rng: of the step, the same in all of its parts; losses draw from it in their order.
    """

    views: Sequence[View]
    own: slice
    states: dict[str, torch.Tensor]
    rng: np.random.Generator

    @property
    def share(self) -> float:
        """What a mean over the part's views counts in the mean over the step's."""
        return len(self.views[self.own]) / len(self.views)


@dataclass(frozen=True)
class Loss(Generic[Settings]):
    """A loss and its section of params.yaml.

    Attributes:
        settings: its section; `weight` 0 leaves the loss out.
        compute: what a part of a step contributes, by name in the learning curve; their mean is the loss. The parts of
            a step have to add up to the step, and each calls the same modules of the model, if for nothing.
    """

    settings: type[Settings]
    compute: Callable[[Known, Settings, Step], dict[str, torch.Tensor]]


def further_loss(name: str, raw: object) -> tuple[Loss[Any], LossSettings]:
    """A loss that params.pretrain.attributes.losses names, with its settings.

    Raises:
        ValueError: there is no such file in calm/training/losses, or it defines no LOSS, or a setting is wrong.
    """
    try:
        loss: Loss[Any] = defined("calm.training.losses", name, "LOSS", Loss)
    except LookupError as error:
        raise ValueError(f"pretrain.attributes.losses.{name}: {error}") from None
    return loss, checked(loss.settings, raw, "params", prefix=f"pretrain.attributes.losses.{name}.")


def stands(view: View, row: tuple[str, str, str]) -> bool:
    """Whether the attribute of a row of the table stands in that row's state; what was not drawn is unchanged."""
    level, attribute, state = row
    drawn = view.get(level)
    return state == (drawn.state if drawn is not None and drawn.attribute == attribute else UNCHANGED)
