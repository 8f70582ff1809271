"""U: text-guided self-supervision of the three Q-formers on unlabelled photographs (paper: MFAM pre-training).

A photograph is edited in known ways, at most one attribute a level, and its Q-formers learn to agree with the guidance
texts of what was done. Two losses, each a parameter (objective chosen here: docs/paper.md):

- contrastive: a level's pooled queries against embedded texts. Within the attribute that was drawn (its states,
  "unchanged" among them, drawn equally often, so that no state is a safe guess), and across the level's attributes
  among the states that edits bring about. Several texts of a state are positives together.
- language: the frozen language model, seeing only the level's own tokens, has to say the guidance text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from calm.attributes.taxonomy import LEVELS, Taxonomy, taxonomy
from calm.attributes.texts import TextBank
from calm.model.build import Assembly
from calm.model.configuration import PLACEHOLDERS
from calm.model.pretrained import TextEncoder
from calm.params import PretrainAttributes
from calm.seeds import stream
from calm.training.conversations import collate
from calm.training.features import Key, Photographs
from calm.training.order import Order
from calm.training.views import View, Views

QUESTION = "Describe the {level}-level attributes of this photograph."


def state_table(known: Taxonomy) -> list[tuple[str, str, str]]:
    """(level, attribute, state) of every state, in the taxonomy's order: the rows of the prototypes."""
    return [(a.level, a.name, state.name) for a in known.attributes for state in a.all_states]


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

    def losses(self, step: int) -> dict[str, torch.Tensor]:
        """Contrastive loss per level and language loss of one step's edited views."""
        rng = stream(self.seed, "pretrain-attributes", step)
        views, tokens = self.views(self.order.visits(step))
        states = {level: self.assembly.model.mfam.level(level)(tokens[level]) for level in LEVELS}
        losses: dict[str, torch.Tensor] = {}
        total = torch.zeros(())
        if self.options.contrastive.weight:
            for level in LEVELS:
                losses[f"contrastive_{level}"] = self._contrastive(level, states[level], views, rng)
            total = total + self.options.contrastive.weight * torch.stack(list(losses.values())).mean()
        if self.options.language.weight:
            losses["language"] = self._language(states, views, rng)
            total = total + self.options.language.weight * losses["language"]
        return {"loss": total, **losses}

    def _contrastive(
        self, level: str, states: torch.Tensor, views: Sequence[View], rng: np.random.Generator
    ) -> torch.Tensor:
        rows = [i for i, view in enumerate(views) if level in view]
        if not rows:  # nothing was drawn: no loss, but still a graph
            return states.sum() * 0
        columns = [(attribute, state) for lvl, attribute, state in self.table if lvl == level]
        count = self.options.contrastive.texts
        picked = torch.cat([self.embedded[column][self._pick(column, count, rng)] for column in columns])
        similarity = self.assembly.model.mfam.similarity(level, states[rows].mean(1), picked.to(states.device))
        similarity = similarity.unflatten(1, (len(columns), count))
        drawn = [views[i][level] for i in rows]
        own = torch.tensor([columns.index((d.attribute, d.state)) for d in drawn])
        same_attribute = torch.tensor([[column[0] == d.attribute for column in columns] for d in drawn])
        changed = torch.tensor([column[1] != "unchanged" for column in columns])
        within = multi_positive(similarity, own, same_attribute)
        edited = changed[own]
        if not edited.any():
            return within
        across = multi_positive(similarity[edited], own[edited], changed.expand(int(edited.sum()), -1))
        return within + across

    def _pick(self, column: tuple[str, str], count: int, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(rng.integers(len(self.embedded[column]), size=count))

    def _language(
        self, states: dict[str, torch.Tensor], views: Sequence[View], rng: np.random.Generator
    ) -> torch.Tensor:
        """Each sample asks about one level of one view; drawn by seed."""
        model, processor = self.assembly.model, self.assembly.processor
        visual, conversations, answers = [], [], []
        candidates = [(i, level) for i, view in enumerate(views) for level in LEVELS if level in view]
        if not candidates:
            return torch.stack([of_level.sum() * 0 for of_level in states.values()]).sum()
        picked = rng.permutation(len(candidates))[: self.options.language.samples]
        for i, level in (candidates[p] for p in picked):
            drawn = views[i][level]
            texts = self.bank.texts(drawn.attribute, drawn.state)
            places = PLACEHOLDERS[LEVELS.index(level)] * states[level].shape[1]
            visual.append(model.mfam.language_tokens(level, states[level][i : i + 1]))
            conversations.append([{"role": "user", "content": places + QUESTION.format(level=level)}])
            answers.append(texts[int(rng.integers(len(texts)))])
        batch = collate(processor, conversations, answers)
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
