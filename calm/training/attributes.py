"""U: text-guided self-supervision of the three Q-formers on unlabelled photographs (paper: MFAM pre-training).

A photograph is edited in known ways, at most one attribute a level, and its Q-formers learn to agree with the guidance
texts of what was done. Losses are files of `calm/training/losses`, each with its weight in params.yaml (chosen here:
docs/paper.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from calm.attributes import LEVELS
from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.model.build import Assembly
from calm.model.heads import Calibration, fit
from calm.model.parts.pretrained import TextEncoder
from calm.seeds import stream
from calm.training.features import ENCODED_AT_ONCE, SKIPPED, Key, Photographs, View, Views
from calm.training.loop.order import WHOLE, Order, Part, Visit
from calm.training.losses import Known, Loss, Step, TextBank, contrastive, further_loss, language, stands
from calm.training.settings import LossSettings, PretrainAttributes


def state_table(known: Taxonomy) -> list[tuple[str, str, str]]:
    """(level, attribute, state) of every state, in the taxonomy's order: the rows of the prototypes."""
    return [(a.level, a.name, state.name) for a in known.attributes for state in a.all_states]


def log_priors(known: Taxonomy) -> torch.Tensor:
    """(S,) log of how often `draw_view` leaves an attribute in each of its states, in the table's order."""
    found = []
    for attribute in known.attributes:
        of_state = (1 - SKIPPED) / len(known.at(attribute.level)) / len(attribute.all_states)
        found += [1 - of_state * len(attribute.states), *[of_state] * len(attribute.states)]
    return torch.tensor(found).log()


class AttributeObjective:
    """The loss of every step, and the parameters it trains: Q-formers, their projections, the contrastive head."""

    def __init__(
        self,
        assembly: Assembly,
        bank: TextBank,
        encoder: TextEncoder,
        photographs: Photographs,
        keys: Sequence[Key],
        options: PretrainAttributes,
        seed: int,
    ) -> None:
        self.assembly, self.model, self.seed = assembly, assembly.model, seed
        self.views = Views(assembly, photographs, sorted(keys), seed, options.views)
        self.order = Order(len(keys), options.batch_size, seed, "pretrain-attributes")
        table = state_table(taxonomy())
        embedded = {row[1:]: encoder.embed(bank.texts(*row[1:])) for row in table}
        self.known = Known(assembly, bank, table, log_priors(taxonomy()), embedded)
        every: list[tuple[Loss[Any], LossSettings]] = [
            (contrastive.LOSS, options.contrastive),
            (language.LOSS, options.language),
        ]
        every += [further_loss(name, raw) for name, raw in options.losses.items()]
        self.weighed = [(loss, settings) for loss, settings in every if settings.weight]
        mfam = assembly.model.mfam
        with torch.no_grad():
            mfam.prototypes.copy_(torch.stack([embedded[row[1:]].mean(0) for row in table]))
        self.parameters = {
            f"mfam.{name}": parameter
            for name, parameter in mfam.named_parameters()
            if name.startswith(("levels.", "text_to_contrast.", "temperature"))
        }

    def read(self, step: int, part: Part) -> tuple[list[View], torch.Tensor | None]:
        """What is done to every photograph of a step, and the edited photographs of a part."""
        visits = self.order.visits(step)
        return self.views.drawn(visits), self.views.pixels(visits[part.slice(len(visits))])

    def losses(
        self, step: int, part: Part = WHOLE, read: tuple[list[View], torch.Tensor | None] | None = None
    ) -> dict[str, torch.Tensor]:
        """What a part of a step's edited views contributes to each loss, and to all of them weighted."""
        visits = self.order.visits(step)
        own = part.slice(len(visits))
        views, pixels = read or self.read(step, part)
        tokens = self.views.encoded(visits[own], pixels)
        states = {level: self.assembly.model.mfam.level(level)(tokens[level]) for level in LEVELS}
        shown = Step(views, own, states, stream(self.seed, "pretrain-attributes", step))
        losses: dict[str, torch.Tensor] = {}
        total = torch.zeros(())
        for loss, settings in self.weighed:
            parts = loss.compute(self.known, settings, shown)
            total = total + settings.weight * torch.stack(list(parts.values())).mean()
            losses |= parts
        return {"loss": total, **losses}

    @torch.no_grad()
    def calibration(self, views: Views) -> Calibration:
        """How sure recognition may be, fitted on views of photographs that it was not learnt from."""
        visits = [Visit(photograph, n) for n in range(views.kept) for photograph in range(len(views.keys))]
        drawn = views.drawn(visits)
        similarities = torch.cat(
            [
                self.assembly.model.mfam.similarities(views.encoded(visits[start : start + ENCODED_AT_ONCE])).cpu()
                for start in range(0, len(visits), ENCODED_AT_ONCE)
            ]
        )
        states = torch.tensor([[stands(view, row) for row in self.known.table] for view in drawn])
        return fit(self.known.table, self.known.log_priors.tolist(), similarities, states)
