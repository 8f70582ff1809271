"""The regression readout: off the language model's state and, where the configuration has it, off what it was shown."""

from __future__ import annotations

import torch
from torch import nn

from calm.attributes import LEVELS
from calm.model.configuration import CalmConfig

REACH = 5.0  # so that some 100 steps of Adam at 5e-4 can move a score over half of its scale


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

    The score is their mean, and each is taught the score by itself: a line for each of the configuration's publics,
    over one reading of the photograph (chosen here: docs/paper.md). A part that is taught what the other misses learns
    noise, because on training photographs the other misses little else (docs/experiments.md).

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
