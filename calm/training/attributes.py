"""U: text-guided self-supervision of the three Q-formers on unlabelled photographs (paper: MFAM pre-training).

A photograph is edited in known ways, at most one attribute a level, and its Q-formers learn to agree with the guidance
texts of what was done. Two losses, each a parameter (objective chosen here: docs/paper.md):

- contrastive: a level's pooled queries against embedded texts. Within the attribute that was drawn (its states,
  "unchanged" among them, drawn equally often, so that no state is a safe guess), and across the level's attributes
  among the states that edits bring about. Several texts of a state are positives together. With a weight of its own,
  every attribute of the level at once, those that were left alone being unchanged: each state's logit is raised by the
  log of how often it is drawn (logit adjustment, Menon et al. 2021), so that similarities stay free of that.
- language: the frozen language model, seeing only the level's own tokens, has to say the guidance text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from calm.attributes.taxonomy import LEVELS, Taxonomy, taxonomy
from calm.attributes.texts import TextBank
from calm.model.build import Assembly
from calm.model.configuration import PLACEHOLDERS
from calm.model.parts.pretrained import TextEncoder
from calm.model.recognition import UNCHANGED, Calibration, attribute_rows, fit
from calm.seeds import stream
from calm.training.conversations import collate
from calm.training.features import ENCODED_AT_ONCE, Key, Photographs
from calm.training.loop.order import WHOLE, Order, Part, Visit
from calm.training.settings import PretrainAttributes
from calm.training.views import SKIPPED, Drawn, View, Views

QUESTION = "Describe the {level}-level attributes of this photograph."


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
        self.assembly, self.bank, self.options, self.seed = assembly, bank, options, seed
        self.views = Views(assembly, photographs, sorted(keys), seed, options.views)
        self.order = Order(len(keys), options.batch_size, seed, "pretrain-attributes")
        self.table = state_table(taxonomy())
        self.log_priors = log_priors(taxonomy())
        self.embedded = {
            (attribute, state): encoder.embed(bank.texts(attribute, state)) for _, attribute, state in self.table
        }
        mfam = assembly.model.mfam
        with torch.no_grad():
            mfam.prototypes.copy_(torch.stack([self.embedded[row[1:]].mean(0) for row in self.table]))
        self.parameters = {
            f"mfam.{name}": parameter
            for name, parameter in mfam.named_parameters()
            if name.startswith(("levels.", "text_to_contrast.", "temperature"))
        }

    @property
    def model(self) -> torch.nn.Module:
        """What strategies share out."""
        return self.assembly.model

    def read(self, step: int, part: Part) -> tuple[list[View], torch.Tensor | None]:
        """What is done to every photograph of a step, and the edited photographs of a part."""
        visits = self.order.visits(step)
        return self.views.drawn(visits), self.views.pixels(visits[part.slice(len(visits))])

    def losses(
        self, step: int, part: Part = WHOLE, read: tuple[list[View], torch.Tensor | None] | None = None
    ) -> dict[str, torch.Tensor]:
        """What a part of a step's edited views contributes to its contrastive loss per level and language loss."""
        rng = stream(self.seed, "pretrain-attributes", step)
        visits = self.order.visits(step)
        own = part.slice(len(visits))
        views, pixels = read or self.read(step, part)
        tokens = self.views.encoded(visits[own], pixels)
        states = {level: self.assembly.model.mfam.level(level)(tokens[level]) for level in LEVELS}
        losses: dict[str, torch.Tensor] = {}
        total = torch.zeros(())
        if self.options.contrastive.weight:
            for level in LEVELS:
                losses[f"contrastive_{level}"] = self._contrastive(level, states[level], views, own, rng)
            total = total + self.options.contrastive.weight * torch.stack(list(losses.values())).mean()
        if self.options.language.weight:
            losses["language"] = self._language(states, views, own, rng)
            total = total + self.options.language.weight * losses["language"]
        return {"loss": total, **losses}

    def _contrastive(
        self, level: str, states: torch.Tensor, views: Sequence[View], own: slice, rng: np.random.Generator
    ) -> torch.Tensor:
        """Share that the views `own`, whose query states are given, have in the mean over all that have the level."""
        everyone = [i for i, view in enumerate(views) if level in view]
        counted = [i for i in everyone if own.start <= i < own.stop]
        rows = [i - own.start for i in counted] or [0]  # every part calls the same modules, if for nothing
        columns = [(attribute, state) for lvl, attribute, state in self.table if lvl == level]
        count = self.options.contrastive.texts
        picked = torch.cat([self.embedded[column][self._pick(column, count, rng)] for column in columns])
        every = self.assembly.model.mfam.similarity(level, states.mean(1), picked.to(states.device))
        every = every.unflatten(1, (len(columns), count))
        told = every.sum() * 0  # every part has a graph, if for nothing
        if weight := self.options.contrastive.every:
            told = weight * self._every(level, every.mean(-1), views[own]) * (len(every) / len(views))
        if not everyone:
            return told
        similarity = every[rows]
        drawn = [views[i][level] for i in counted or everyone[:1]]
        states_drawn = torch.tensor([columns.index((d.attribute, d.state)) for d in drawn])
        same_attribute = torch.tensor([[column[0] == d.attribute for column in columns] for d in drawn])
        changed = torch.tensor([column[1] != "unchanged" for column in columns])
        within = multi_positive(similarity, states_drawn, same_attribute) * (len(counted) / len(everyone))
        within = within + told
        edited = changed[states_drawn]
        if not counted or not edited.any():
            return within
        share = int(edited.sum()) / sum(views[i][level].edit is not None for i in everyone)
        across = multi_positive(similarity[edited], states_drawn[edited], changed.expand(int(edited.sum()), -1))
        return within + across * share

    def _every(self, level: str, similarity: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
        """Cross-entropy of every attribute's state, mean over attributes and views.

        Args:
            similarity: (B, states of the level) of the views.
        """
        offset = [at for at, _, _ in self.table].index(level)
        losses = []
        for rows in attribute_rows(self.table):
            if self.table[rows[0]][0] != level:
                continue
            wanted = torch.tensor([[self._stands(view, row) for row in rows] for view in views]).int().argmax(1)
            columns = [row - offset for row in rows]
            raised = similarity[:, columns] + self.log_priors[rows].to(similarity.device)
            losses.append(nn.functional.cross_entropy(raised, wanted.to(similarity.device)))
        return torch.stack(losses).mean()

    def _stands(self, view: View, row: int) -> bool:
        """Whether the attribute of a row of the table stands in that row's state; what was not drawn is unchanged."""
        level, attribute, state = self.table[row]
        drawn = view.get(level)
        return state == (drawn.state if drawn is not None and drawn.attribute == attribute else UNCHANGED)

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
        states = torch.tensor([[self._stands(view, row) for row in range(len(self.table))] for view in drawn])
        return fit(self.table, self.log_priors.tolist(), similarities, states)

    def _pick(self, column: tuple[str, str], count: int, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(rng.integers(len(self.embedded[column]), size=count))

    def _language(
        self, states: dict[str, torch.Tensor], views: Sequence[View], own: slice, rng: np.random.Generator
    ) -> torch.Tensor:
        """Share of the views `own` in the mean over samples; each asks about one level of one view, drawn by seed."""
        candidates = [(i, level) for i, view in enumerate(views) for level in LEVELS if level in view]
        if not candidates:
            return torch.stack([of_level.sum() * 0 for of_level in states.values()]).sum()
        picked = rng.permutation(len(candidates))[: self.options.language.samples]
        samples = [(i, level, self._guidance(views[i][level], rng)) for i, level in (candidates[p] for p in picked)]
        counted = [sample for sample in samples if own.start <= sample[0] < own.stop]
        visual, asked, answers, idle = [], [], [], torch.zeros(())
        for level in (level for level in LEVELS if any(sample[1] == level for sample in samples)):
            rows = [i - own.start for i, at, _ in counted if at == level]
            tokens = self.assembly.model.mfam.language_tokens(level, states[level][rows or [0]])
            if not rows and counted:  # every part calls the same modules, if for nothing
                idle = idle + tokens.sum() * 0
                continue
            visual += tokens.split(1)
            asked += [level] * len(tokens)
            answers += [answer for _, at, answer in counted or samples if at == level][: len(tokens)]
        loss = self._said(visual, asked, answers)
        return loss * (len(counted) / len(samples)) + idle

    def _guidance(self, drawn: Drawn, rng: np.random.Generator) -> str:
        texts = self.bank.texts(drawn.attribute, drawn.state)
        return texts[int(rng.integers(len(texts)))]

    def _said(self, visual: list[torch.Tensor], asked: list[str], answers: list[str]) -> torch.Tensor:
        """Loss of the frozen language model on guidance texts, each for one level's tokens (1, queries, D)."""
        model = self.assembly.model
        places = [
            PLACEHOLDERS[LEVELS.index(level)] * tokens.shape[1] for level, tokens in zip(asked, visual, strict=True)
        ]
        conversations = [
            [{"role": "user", "content": place + QUESTION.format(level=level)}]
            for place, level in zip(places, asked, strict=True)
        ]
        batch = collate(self.assembly.processor, conversations, answers)
        return model(
            input_ids=batch.input_ids.to(model.device),
            attention_mask=batch.attention_mask.to(model.device),
            labels=batch.labels.to(model.device),
            visual_tokens=torch.cat(visual),
        ).loss


def multi_positive(similarity: torch.Tensor, own: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Mean -log p of every text of the own state, among all texts of the candidate states.

    Args:
        similarity: (B, states, texts of each).
        own: (B,) index of each row's own state.
        candidates: (B, states), true where a state competes; the own state always does.
    """
    logits = similarity.masked_fill(~candidates.unsqueeze(-1).to(similarity.device), float("-inf"))
    log_p = logits.flatten(1).log_softmax(-1).view_as(similarity)
    return -log_p[torch.arange(len(own)), own].mean()
