"""A level's pooled queries against embedded guidance texts; several texts of a state are positives together.

Within the attribute that was drawn (its states, "unchanged" among them, drawn equally often, so that no state is a safe
guess), and across the level's attributes among the states that edits bring about. With a weight of its own, every
attribute of the level at once, those that were left alone being unchanged: each state's logit is raised by the log of
how often it is drawn (logit adjustment, Menon et al. 2021), so that similarities stay free of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from calm.model.heads import UNCHANGED, attribute_rows
from calm.training.features import View
from calm.training.losses import Known, Loss, Step, stands
from calm.training.settings import Contrastive


def contrastive(known: Known, options: Contrastive, step: Step) -> dict[str, torch.Tensor]:
    """The loss of each level."""
    return {f"contrastive_{level}": _of_level(level, known, options, step) for level in step.states}


def _of_level(level: str, known: Known, options: Contrastive, step: Step) -> torch.Tensor:
    """Share that the part's views have in the mean over all that have the level."""
    views, own = step.views, step.own
    everyone = [i for i, view in enumerate(views) if level in view]
    counted = [i for i in everyone if own.start <= i < own.stop]
    columns = [(attribute, state) for at, attribute, state in known.table if at == level]
    count = options.texts
    texts = [known.embedded[column] for column in columns]
    picked = torch.cat([of[torch.from_numpy(step.rng.integers(len(of), size=count))] for of in texts])
    pooled = step.states[level].mean(1)
    every = known.assembly.model.mfam.similarity(level, pooled, picked.to(pooled.device))
    every = every.unflatten(1, (len(columns), count))
    loss = every.sum() * 0  # every part has a graph, if for nothing
    if options.every:
        loss = options.every * _every(level, known, every.mean(-1), views[own]) * step.share
    if not everyone:
        return loss
    similarity = every[[i - own.start for i in counted] or [0]]
    drawn = [views[i][level] for i in counted or everyone[:1]]
    states_drawn = torch.tensor([columns.index((d.attribute, d.state)) for d in drawn])
    same_attribute = torch.tensor([[column[0] == d.attribute for column in columns] for d in drawn])
    changed = torch.tensor([column[1] != UNCHANGED for column in columns])
    within = multi_positive(similarity, states_drawn, same_attribute) * (len(counted) / len(everyone))
    loss = within + loss
    edited = changed[states_drawn]
    if not counted or not edited.any():
        return loss
    share = int(edited.sum()) / sum(views[i][level].edit is not None for i in everyone)
    across = multi_positive(similarity[edited], states_drawn[edited], changed.expand(int(edited.sum()), -1))
    return loss + across * share


def _every(level: str, known: Known, similarity: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
    """Cross-entropy of every attribute's state, mean over attributes and views.

    Args:
        similarity: (B, states of the level) of the views.
    """
    offset = [at for at, _, _ in known.table].index(level)
    losses = []
    for rows in attribute_rows(known.table):
        if known.table[rows[0]][0] != level:
            continue
        stand = torch.tensor([[stands(view, known.table[row]) for row in rows] for view in views])
        columns = [row - offset for row in rows]
        raised = similarity[:, columns] + known.log_priors[rows].to(similarity.device)
        wanted = stand.int().argmax(1).to(similarity.device)
        losses.append(nn.functional.cross_entropy(raised, wanted))
    return torch.stack(losses).mean()


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


LOSS = Loss(Contrastive, contrastive)
