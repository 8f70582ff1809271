"""How likely is each attribute state in a photograph? Similarities to probabilities, learnt on photographs held out.

The similarity of a level's queries with a state's guidance texts says which state of an attribute fits best, as if all
were equally common. In photographs most attributes are unchanged. So the logits of an attribute's states are

    slope * similarity + log(how often the state occurs) + (offset, unless it is "unchanged")

and slope and offset, two numbers for the whole catalogue, are fitted by maximum likelihood (temperature scaling, Guo et
al. 2017, with an offset) on edited views of photographs that the similarities were not learnt from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from calm.model.configuration import CalmConfig

UNCHANGED = "unchanged"
Row = Sequence[str]  # level, attribute, state


class UncalibratedError(ValueError):
    """The checkpoint does not say how sure its recognition may be."""


@dataclass(frozen=True)
class Calibration:
    """What turns similarities into probabilities.

    Attributes:
        log_priors: (S,) of every attribute state, log of how often it occurs among its attribute's.
        slope, offset: fitted; 1 and 0 take the similarities at their word.
    """

    log_priors: tuple[float, ...]
    slope: float = 1.0
    offset: float = 0.0

    def to_config(self) -> dict[str, Any]:
        """For `CalmConfig.recognition`."""
        return asdict(self) | {"log_priors": list(self.log_priors)}


def passing(probabilities: Sequence[float], first: float, further: float) -> int:
    """How many states are taken to be there, of a photograph's by their probabilities, likeliest first.

    None, unless the likeliest one reaches `first`; then those that reach `further` too: a photograph that is not as it
    should be in one way often is not in others.
    """
    if not probabilities or probabilities[0] < first:
        return 0
    return max(1, sum(probability >= further for probability in probabilities))


def attribute_rows(table: Sequence[Row]) -> list[list[int]]:
    """Rows of each attribute of a table of (level, attribute, state)."""
    names = dict.fromkeys(attribute for _, attribute, _ in table)
    return [[row for row, (_, name, _) in enumerate(table) if name == wanted] for wanted in names]


@dataclass(frozen=True)
class Recogniser:
    """Probabilities of attribute states, for the catalogue that a configuration names."""

    table: Sequence[Row]
    calibration: Calibration
    unpraised: frozenset[str] = frozenset()

    @staticmethod
    def of(config: CalmConfig) -> Recogniser:
        """That of a checkpoint.

        Raises:
            UncalibratedError: the checkpoint was trained by an earlier calm.
        """
        if not config.recognition:
            raise UncalibratedError(
                "the checkpoint does not say how likely what it recognises is: an earlier calm made it; "
                "train a new one (`dvc repro`)"
            )
        calibration = Calibration(
            tuple(config.recognition["log_priors"]), config.recognition["slope"], config.recognition["offset"]
        )
        return Recogniser(config.attribute_states, calibration, frozenset(config.unpraised))

    @cached_property
    def attributes(self) -> list[list[int]]:
        """Rows of each attribute."""
        return attribute_rows(self.table)

    @cached_property
    def changed(self) -> torch.Tensor:
        """(S,), false for unchanged states."""
        return torch.tensor([state != UNCHANGED for _, _, state in self.table])

    def probabilities(self, similarities: torch.Tensor) -> torch.Tensor:
        """(B, S) similarities to probabilities (B, S) that sum to 1 within each attribute."""
        device = similarities.device
        log_priors = torch.tensor(self.calibration.log_priors, device=device)
        logits = self.calibration.slope * similarities.float() + log_priors
        logits = logits + self.calibration.offset * self.changed.to(device)
        shares = torch.empty_like(logits)
        for rows in self.attributes:
            shares[:, rows] = logits[:, rows].softmax(-1)
        return shares

    def likeliest(self, similarities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every attribute's likeliest state but "unchanged", likeliest first.

        Returns:
            rows of the table (B, attributes) and their probabilities, of the same shape.
        """
        shares = self.probabilities(similarities).masked_fill(~self.changed.to(similarities.device), -1)
        best = [shares[:, rows].max(-1) for rows in self.attributes]
        found = torch.stack(
            [
                torch.tensor(rows, device=shares.device)[one.indices]
                for rows, one in zip(self.attributes, best, strict=True)
            ],
            dim=1,
        )
        values, order = torch.stack([one.values for one in best], dim=1).sort(dim=1, descending=True, stable=True)
        return found.gather(1, order), values

    def soundest(self, similarities: torch.Tensor) -> torch.Tensor:
        """Every praised attribute's row of "unchanged" (B, praised), the one with most evidence for it first.

        Evidence is by how much the photograph raises the log odds of "unchanged" above how common it is.
        """
        shares = self.probabilities(similarities)
        named = enumerate(self.table)
        rows = [row for row, (_, name, state) in named if state == UNCHANGED and name not in self.unpraised]
        common = torch.tensor(self.calibration.log_priors, device=shares.device)[rows].exp()
        evidence = shares[:, rows].logit(eps=1e-6) - common.logit(eps=1e-6)
        return torch.tensor(rows, device=shares.device)[evidence.argsort(dim=1, descending=True, stable=True)]


def fit(
    table: Sequence[Row], log_priors: Sequence[float], similarities: torch.Tensor, states: torch.Tensor
) -> Calibration:
    """Slope and offset under which the states of held-out views are likeliest.

    Args:
        similarities: (V, S) of views of photographs that were not trained on.
        states: (V, S), true for the state in which each attribute of a view stands.
    """
    from scipy.optimize import minimize

    def surprise(found: np.ndarray) -> float:
        recogniser = Recogniser(table, Calibration(tuple(log_priors), float(found[0]), float(found[1])))
        return float(-recogniser.probabilities(similarities)[states].clamp_min(1e-9).log().double().mean())

    best = minimize(surprise, x0=np.array([1.0, 0.0]), method="Nelder-Mead", bounds=[(0.05, 5.0), (-5.0, 5.0)])
    return Calibration(tuple(log_priors), round(float(best.x[0]), 4), round(float(best.x[1]), 4))
