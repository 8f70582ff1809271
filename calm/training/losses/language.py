"""The frozen language model, seeing only a level's own tokens, has to say the guidance text of what was done."""

from __future__ import annotations

import torch

from calm.attributes import LEVELS
from calm.model.configuration import PLACEHOLDERS
from calm.training.losses import Known, Loss, Step
from calm.training.settings import LanguageLoss
from calm.training.tuning import collate

QUESTION = "Describe the {level}-level attributes of this photograph."


def language(known: Known, options: LanguageLoss, step: Step) -> dict[str, torch.Tensor]:
    """Share of the part's views in the mean over samples; each asks about one level of one view, drawn by seed."""
    views, own, states, rng = step.views, step.own, step.states, step.rng
    candidates = [(i, level) for i, view in enumerate(views) for level in LEVELS if level in view]
    if not candidates:
        return {"language": torch.stack([of_level.sum() * 0 for of_level in states.values()]).sum()}
    samples = []
    for i, level in (candidates[place] for place in rng.permutation(len(candidates))[: options.samples]):
        texts = known.bank.texts(views[i][level].attribute, views[i][level].state)
        samples.append((i, level, texts[int(rng.integers(len(texts)))]))
    counted = [sample for sample in samples if own.start <= sample[0] < own.stop]
    visual, asked, answers, idle = [], [], [], torch.zeros(())
    for level in (level for level in LEVELS if any(sample[1] == level for sample in samples)):
        rows = [i - own.start for i, at, _ in counted if at == level]
        tokens = known.assembly.model.mfam.language_tokens(level, states[level][rows or [0]])
        if not rows and counted:  # every part calls the same modules, if for nothing
            idle = idle + tokens.sum() * 0
            continue
        visual += tokens.split(1)
        asked += [level] * len(tokens)
        answers += [answer for _, at, answer in counted or samples if at == level][: len(tokens)]
    return {"language": _said(known, visual, asked, answers) * (len(counted) / len(samples)) + idle}


def _said(known: Known, visual: list[torch.Tensor], asked: list[str], answers: list[str]) -> torch.Tensor:
    """Loss of the frozen language model on guidance texts, each for one level's tokens (1, queries, D)."""
    model = known.assembly.model
    conversations = []
    for level, tokens in zip(asked, visual, strict=True):
        places = PLACEHOLDERS[LEVELS.index(level)] * tokens.shape[1]
        conversations.append([{"role": "user", "content": places + QUESTION.format(level=level)}])
    batch = collate(known.assembly.processor, conversations, answers)
    return model(**batch.inputs(model.device), visual_tokens=torch.cat(visual)).loss


LOSS = Loss(LanguageLoss, language)
