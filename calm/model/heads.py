"""What is read off a photograph's tokens: how likely each attribute state is (recognition), and scores as numbers.

The similarity of a level's queries with a state's guidance texts says which state of an attribute fits best, as if all
were equally common. In photographs most attributes are unchanged. So the logits of an attribute's states are

    slope * similarity + log(how often the state occurs) + (offset, unless it is "unchanged")

and slope and offset, two numbers for the whole catalogue, are fitted by maximum likelihood (temperature scaling, Guo et
al. 2017, with an offset) on edited views of photographs that the similarities were not learnt from.

The regression readout of a score reads the language model's state and, where the configuration has it, what that model
was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from calm.attributes import LEVELS
from calm.model.configuration import CalmConfig

UNCHANGED = "unchanged"
Row = Sequence[str]  # level, attribute, state
REACH = 5.0  # so that some 100 steps of Adam at 5e-4 can move a score over half of its scale


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


def passing(probabilities: torch.Tensor, first: float, further: float) -> torch.Tensor:
    """How many states (...,) are taken to be there, by a photograph's probabilities (..., S), likeliest first.

    None, unless the likeliest one reaches `first`; then those that reach `further` too: a photograph that is not as it
    should be in one way often is not in others.
    """
    probabilities = probabilities.double()  # as the thresholds are
    return (probabilities >= further).sum(-1).clamp_min(1) * (probabilities[..., 0] >= first)


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
    chosen: frozenset[int] = frozenset()  # rows of the states that are no flaw either, though they are a change

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

    @property
    def attributes(self) -> list[list[int]]:
        """Rows of each attribute."""
        return attribute_rows(self.table)

    @property
    def changed(self) -> torch.Tensor:
        """(S,), false for unchanged states."""
        return torch.tensor([state != UNCHANGED for _, _, state in self.table])

    def changes(self, row: int) -> list[int]:
        """Rows of the states but "unchanged" of the attribute that this row is of."""
        (attribute,) = [rows for rows in self.attributes if row in rows]
        return [one for one in attribute if self.table[one][2] != UNCHANGED]

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
        """Every attribute's likeliest state but "unchanged" and `chosen` ones, likeliest first.

        Returns:
            rows of the table (B, attributes) and their probabilities, of the same shape.
        """
        flaws = self.changed
        flaws[list(self.chosen)] = False
        shares = self.probabilities(similarities).masked_fill(~flaws.to(similarities.device), -1)
        best = [shares[:, rows].max(-1) for rows in self.attributes]
        found = torch.stack(
            [
                torch.tensor(rows, device=shares.device)[one.indices]
                for rows, one in zip(self.attributes, best, strict=True)
            ],
            dim=1,
        )
        most = torch.stack([one.values.clamp_min(0) for one in best], dim=1)
        values, order = most.sort(dim=1, descending=True, stable=True)
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

    def told(self, similarities: torch.Tensor, count: int, first: float, further: float) -> torch.Tensor:
        """What to tell of each photograph: rows of the table (B, count), likeliest first, then its length for nothing.

        The states that are recognised surely enough (`passing`). Where there are none, "unchanged" of the attributes
        that are surest to be as they should be.
        """
        states, values = self.likeliest(similarities)
        passed = passing(values, first, further).unsqueeze(1)
        rank = torch.arange(count, device=states.device)
        changed, sound = (self._first(count, rows) for rows in (states, self.soundest(similarities)))
        return torch.where(passed == 0, sound, changed.where(rank < passed, len(self.table)))

    def _first(self, count: int, rows: torch.Tensor) -> torch.Tensor:
        """(B, count) of rows (B, N)."""
        return nn.functional.pad(rows[:, :count], (0, max(0, count - rows.shape[1])), value=len(self.table))


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


class Lines(nn.Linear):
    """A few numbers (B, lines) of each row (B, D), added up by torch.

    A matrix library's product with a vector has bits that depend on where in memory the weights lie, and a model that
    was read from a file would not answer as the one that was saved.
    """

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """`rows` (B, D) to (B, lines)."""
        return torch.stack([(rows * line).sum(-1) for line in self.weight], dim=1) + self.bias


class ScoreHead(nn.Module):
    """The language model's part and the visual tokens' part, in half-scales above the middle of the score scale.

    The score is their weighted mean, and each is taught the score by itself: a line for each of the configuration's
    publics, over one reading of the photograph (chosen here: docs/paper.md). A part that is taught what the other
    misses learns noise, because on training photographs the other misses little else (docs/experiments.md).

    The visual part (chosen here: docs/paper.md) reads H_low, H_middle, H_high and H_thematic, the very tokens that the
    language model is given: averages of each level's and of the places', and every token of content, all normalised,
    then one hidden layer of `config.score_width` units, none with 0. It can be trained without the language model, and
    then, in training mode, forgets `config.score_dropout` of what it reads and of its hidden units.

    The language model's part is a line over its state: the state itself where that is all there is, its direction, in
    the length `REACH`, beside a visual part (chosen here too). Adam moves every weight by the rate: over SmolLM2's
    states, of length 53, a step at 1e-3 moves a score by two points, and the gradient of that noise drowns the words'.
    """

    def __init__(self, config: CalmConfig) -> None:
        super().__init__()
        width, publics = config.text_config.hidden_size, max(1, len(config.publics))
        self.language = Lines(width, publics)
        self.parts = [config.queries] * len(LEVELS) + [config.places] + [1] * len(config.content_widths)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.visual: nn.Sequential | None = None
        if hidden := config.score_width:
            forget = nn.Dropout(config.score_dropout)
            first = nn.Linear(len(self.parts) * width, hidden)
            self.visual = nn.Sequential(forget, first, nn.GELU(), forget, Lines(hidden, publics))

    def forward(self, states: torch.Tensor, visual_tokens: torch.Tensor) -> torch.Tensor:
        """What each part says for each public, (B, 1 or 2, publics).

        Args:
            states: the language model's, (B, D).
            visual_tokens: (B, N, D).
        """
        states = states.to(self.language.weight.dtype)
        if self.visual is None:
            return self.language(states).unsqueeze(1)
        direction = REACH * nn.functional.normalize(states, dim=-1)
        return torch.stack([self.language(direction), self.look(visual_tokens)], dim=1)

    def look(self, visual_tokens: torch.Tensor) -> torch.Tensor:
        """The visual part alone: (B, publics) of visual tokens (B, N, D)."""
        assert self.visual is not None, "config.score_width is 0: there is no visual part"
        seen = visual_tokens[:, : sum(self.parts)]  # without the words that may follow
        parts = seen.to(self.language.weight.dtype).split(self.parts, dim=1)
        means = torch.stack([part.mean(1) for part in parts], dim=1)
        raw: torch.Tensor = self.visual(self.norm(means).flatten(1))
        return raw
