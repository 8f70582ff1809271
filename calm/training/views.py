"""Edited views of unlabelled photographs: what the self-supervision looks at, with what was done to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from calm.attributes import LEVELS
from calm.attributes.edits import Edit, absent
from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.model.build import Assembly
from calm.model.mfam import LevelTokens
from calm.seeds import stream
from calm.training.features import ENCODED_AT_ONCE, Key, Photographs, render
from calm.training.loop.order import Visit

SKIPPED = 0.25  # share of (view, level) pairs without a drawn attribute: views with fewer edits are seen too


@dataclass(frozen=True)
class Drawn:
    """What was drawn for one level of one view: an attribute and its state, changed or not."""

    attribute: str
    state: str
    edit: Edit | None


View = dict[str, Drawn]  # by level


def draw_view(rng: np.random.Generator, known: Taxonomy, without: frozenset[str] = frozenset()) -> View:
    """Draw at most one attribute a level, and one of its states; edits that contradict each other are not combined.

    Args:
        rng: of this view alone.
        known: where attributes are drawn from, each equally likely, then its states ("unchanged" is one).
        without: quantities that the photograph lacks, so that no edit could change them (colour in a grey one).
    """
    drawn: View = {}
    touched = without
    for level in [LEVELS[i] for i in rng.permutation(len(LEVELS))]:
        if rng.uniform() < SKIPPED:
            continue
        # The attribute as a whole must be free: were only some states, "unchanged" would be drawn too often.
        free = [attribute for attribute in known.at(level) if not attribute.touches & touched]
        if not free:
            continue
        attribute = free[int(rng.integers(len(free)))]
        state = attribute.all_states[int(rng.integers(len(attribute.all_states)))]
        edit = None
        if state.edit is not None:
            severity, seed = float(rng.uniform()), int(rng.integers(2**63, dtype=np.uint64))
            edit = Edit(attribute.name, state.name, severity, seed)
        touched |= attribute.touches
        drawn[level] = Drawn(attribute.name, state.name, edit)
    return drawn


class Views:
    """The n-th view of a photograph is a function of (seed, photograph, n).

    With `kept` > 0 a photograph has that many views, all encoded once the first is asked for, and later epochs meet
    them again; the encoder is then no longer what training waits for. With 0 every epoch draws and encodes new ones.
    """

    def __init__(self, assembly: Assembly, photographs: Photographs, keys: Sequence[Key], seed: int, kept: int) -> None:
        self.assembly, self.photographs, self.keys, self.seed, self.kept = assembly, photographs, list(keys), seed, kept
        self.known = taxonomy()
        self._without: dict[Key, frozenset[str]] = {}

    def drawn(self, visits: Sequence[Visit]) -> list[View]:
        """What is done to each photograph at that visit."""
        return [self._drawn(self._kept(visit)) for visit in visits]

    def pixels(self, visits: Sequence[Visit]) -> torch.Tensor | None:
        """Each photograph as it is edited at that visit: (B, 3, S, S), normalised; None where views are kept."""
        return None if self.kept else self._rendered(visits)

    def encoded(self, visits: Sequence[Visit], pixels: torch.Tensor | None = None) -> LevelTokens:
        """What the encoder sees of each photograph at that visit, whose `pixels` may be at hand."""
        if not self.kept:
            return self.assembly.encode(self._rendered(visits) if pixels is None else pixels)
        kept = [self._kept(visit) for visit in visits]
        rows = [self._everything[visit.epoch].rows(slice(visit.sample, visit.sample + 1)) for visit in kept]
        return LevelTokens.concatenate(rows)

    @cached_property
    def _everything(self) -> list[LevelTokens]:
        """All kept views. Always in the same chunks: a resumed run has to see the very same bits."""
        everything = range(len(self.keys))
        return [self._encode_all([Visit(index, n) for index in everything]) for n in range(self.kept)]

    def _kept(self, visit: Visit) -> Visit:
        return Visit(visit.sample, visit.epoch % self.kept) if self.kept else visit

    def _drawn(self, visit: Visit) -> View:
        key = self.keys[visit.sample]
        if key not in self._without:
            self._without[key] = absent(self.photographs.unit_pixels(key).unsqueeze(0))[0]
        return draw_view(stream(self.seed, "view", *key, visit.epoch), self.known, self._without[key])

    def _encode_all(self, visits: Sequence[Visit]) -> LevelTokens:
        chunks = [visits[start : start + ENCODED_AT_ONCE] for start in range(0, len(visits), ENCODED_AT_ONCE)]
        return LevelTokens.concatenate([self.assembly.encode(self._rendered(chunk)) for chunk in chunks])

    def _rendered(self, visits: Sequence[Visit]) -> torch.Tensor:
        edits = [[drawn.edit for drawn in self._drawn(visit).values() if drawn.edit] for visit in visits]
        pixels = [self.photographs.unit_pixels(self.keys[visit.sample]) for visit in visits]
        with torch.no_grad():
            return render(pixels, edits, self.assembly.preprocessing)
