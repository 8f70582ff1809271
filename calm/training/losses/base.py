"""What a loss of the self-supervision is: a file in `calm/training/losses` that ends in a `LOSS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from calm.attributes.texts import TextBank
from calm.model.build import Assembly
from calm.model.recognition import UNCHANGED
from calm.plugins import defined
from calm.settings import checked
from calm.training.settings import LossSettings
from calm.training.views import View

Settings = TypeVar("Settings", bound=LossSettings)


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
