"""Encoder features of photographs, and the edited views that the self-supervision looks at.

The encoder is frozen, so nothing here builds a graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
import torch
from PIL import Image

from calm.attributes import LEVELS
from calm.attributes.edits import Edit, absent, apply_edits, spoil
from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.data.store.shards import ImageStore
from calm.layout import Layout
from calm.model.build import Assembly
from calm.model.mfam import LevelTokens
from calm.model.processing import Preprocessing, byte_pixels, normalise
from calm.model.settings import Runtime
from calm.seeds import stream
from calm.training.loop.order import Visit

Key = tuple[str, str] | tuple[str, str, str]  # dataset, item_id, and how it is spoilt if it is

ENCODED_AT_ONCE = 32
DECODED_KEPT = 512  # photographs kept decoded, a byte a channel: about 90 MB at 288 pixels
SKIPPED = 0.25  # share of (view, level) pairs without a drawn attribute: views with fewer edits are seen too


def keys_of(rows: pd.DataFrame) -> list[list[Key]]:
    """The photographs of each training row (INSTRUCTION); `spoilt` is null where they are as they are."""
    named = zip(rows["dataset"], rows["item_ids"], rows["spoilt"], strict=True)
    return [[(name, item, how) if isinstance(how, str) else (name, item) for item in ids] for name, ids, how in named]


class Photographs:
    """Photographs of several datasets, as they are or spoilt."""

    def __init__(self, layout: Layout, datasets: Iterable[str]) -> None:
        self.stores = {dataset: ImageStore(layout.prepared(dataset)) for dataset in sorted(set(datasets))}
        self._decoded = lru_cache(maxsize=DECODED_KEPT)(lambda key: byte_pixels(self[key]))

    def __getitem__(self, key: Key) -> Image.Image:
        dataset, item_id, *how = key
        photograph = self.stores[dataset][item_id]
        return spoil(photograph, how[0], dataset, item_id) if how else photograph

    def unit_pixels(self, key: Key) -> torch.Tensor:
        """A photograph as (3, H, W) float in 0..1."""
        return self._decoded(key).float() / 255


def render(
    pixels: Sequence[torch.Tensor], edits: Sequence[Sequence[Edit]], preprocessing: Preprocessing
) -> torch.Tensor:
    """Edit photographs at the size they are stored in, then bring them to what the encoder expects.

    Args:
        pixels: photographs (3, H, W) in 0..1, of any sizes.
        edits: those of each photograph.

    Returns:
        (B, 3, S, S), normalised. Photographs of one size are edited together.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(pixels):
        groups.setdefault(tuple(image.shape[-2:]), []).append(i)
    rendered = torch.empty(len(pixels), 3, preprocessing.size, preprocessing.size)
    for rows in groups.values():
        edited = apply_edits(torch.stack([pixels[i] for i in rows]), [edits[i] for i in rows])
        rendered[rows] = normalise(edited, preprocessing)
    return rendered


class Features:
    """Level tokens of photographs as they are, encoded once and kept in memory if `keep`."""

    def __init__(self, assembly: Assembly, photographs: Photographs, *, keep: bool) -> None:
        self.assembly = assembly
        self.photographs = photographs
        self.keep = keep
        self._kept: dict[Key, LevelTokens] = {}

    @staticmethod
    def of(assembly: Assembly, datasets: Iterable[str], runtime: Runtime, layout: Layout) -> Features:
        """As `runtime` says."""
        return Features(assembly, Photographs(layout, datasets), keep=runtime.keep_features)

    def __call__(self, keys: Sequence[Key]) -> LevelTokens:
        """Features of `keys`, in their order."""
        if not self.keep:
            return self._encode(keys)
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        for start in range(0, len(missing), ENCODED_AT_ONCE):
            chunk = missing[start : start + ENCODED_AT_ONCE]
            encoded = self._encode(chunk)
            self._kept.update((key, encoded.rows(slice(i, i + 1))) for i, key in enumerate(chunk))
        return LevelTokens.concatenate([self._kept[key] for key in keys])

    def read(self, keys: Sequence[Key]) -> torch.Tensor | None:
        """Photographs as the encoder expects them, (B, 3, S, S); None where features are kept instead."""
        return None if self.keep else self._pixels(keys)

    def prepare(self, keys: Iterable[Key]) -> None:
        """Encode all `keys` now, in an order of their own, so that a resumed run keeps the very same bits."""
        if self.keep:
            self(sorted(set(keys)))

    def _encode(self, keys: Sequence[Key]) -> LevelTokens:
        return self.assembly.encode(self._pixels(keys))

    def _pixels(self, keys: Sequence[Key]) -> torch.Tensor:
        images = [self.photographs[key] for key in keys]
        pixels: torch.Tensor = self.assembly.processor.image_processor(images, return_tensors="pt")["pixel_values"]
        return pixels


@dataclass(frozen=True)
class Drawn:
    """What was drawn for one level of one view: an attribute and its state, changed or not, and by which edit."""

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


def mirror(view: View, known: Taxonomy) -> View:
    """What the mirrored view is: a tilt to the left for one to the right."""
    states = {level: known.attribute(one.attribute).state(one.state) for level, one in view.items()}
    return {level: replace(one, state=states[level].mirrored or one.state) for level, one in view.items()}


class Views:
    """The n-th view of a photograph is a function of (seed, photograph, n); every second one is mirrored once edited.

    So an edit that turns a picture to one side is seen to both. With `kept` > 0 a photograph has that many views, all
    encoded once the first is asked for, and later epochs meet them again; the encoder is then no longer what training
    waits for. With 0 every epoch draws and encodes new ones.
    """

    def __init__(self, assembly: Assembly, photographs: Photographs, keys: Sequence[Key], seed: int, kept: int) -> None:
        self.assembly, self.photographs, self.keys, self.seed, self.kept = assembly, photographs, list(keys), seed, kept
        self.known = taxonomy()
        self._without: dict[Key, frozenset[str]] = {}

    def drawn(self, visits: Sequence[Visit]) -> list[View]:
        """What is done to each photograph at that visit."""
        views = [(visit, self._drawn(visit)) for visit in map(self._kept, visits)]
        return [mirror(view, self.known) if self._mirrored(visit) else view for visit, view in views]

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

    @staticmethod
    def _mirrored(visit: Visit) -> bool:
        return visit.epoch % 2 == 1

    def _encode_all(self, visits: Sequence[Visit]) -> LevelTokens:
        chunks = [visits[start : start + ENCODED_AT_ONCE] for start in range(0, len(visits), ENCODED_AT_ONCE)]
        return LevelTokens.concatenate([self.assembly.encode(self._rendered(chunk)) for chunk in chunks])

    def _rendered(self, visits: Sequence[Visit]) -> torch.Tensor:
        edits = [[drawn.edit for drawn in self._drawn(visit).values() if drawn.edit] for visit in visits]
        pixels = [self.photographs.unit_pixels(self.keys[visit.sample]) for visit in visits]
        with torch.no_grad():
            rendered = render(pixels, edits, self.assembly.preprocessing)
        mirrored = torch.tensor([self._mirrored(visit) for visit in visits])
        rendered[mirrored] = rendered[mirrored].flip(-1)
        return rendered
