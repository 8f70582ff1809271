"""Edits of photographs: what they are, how they are drawn, applied and stored; edited and spoilt copies, labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import numpy as np
from PIL import Image
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from calm.attributes.taxonomy import STEPS, Attribute, State, Taxonomy, taxonomy
from calm.seeds import derive, stream
from calm.settings import Share

if TYPE_CHECKING:
    from torch import Tensor


SMALLEST_SIDE = 64
GREY_CHROMA = 0.01  # mean chroma under which a photograph counts as grey
_SEEDS = 2**63


class EditError(ValueError):
    """Edits, or images to be edited, that cannot be used."""


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Edit:
    """One attribute brought into one state.

    Attributes:
        severity: 0 (just visible) to 1.
        seed: of the operation's own draws (where patches go, the grains of noise), 0..2**63-1.
    """

    attribute: str
    state: str
    severity: Share
    seed: Annotated[int, Field(ge=0, lt=_SEEDS)]


def resolve(edit: Edit, known: Taxonomy) -> tuple[Attribute, State]:
    """The attribute and state that an edit names.

    Raises:
        EditError: the taxonomy has no such attribute or state, or the state is no edit.
    """
    attribute = known.attribute(edit.attribute)
    state = attribute.state(edit.state)
    if state.edit is None:
        raise EditError(f"'{edit.state}' of '{edit.attribute}' is not an edit: leave the attribute out instead")
    return attribute, state


def apply_edits(images: Tensor, edits: Sequence[Sequence[Edit]], known: Taxonomy | None = None) -> Tensor:
    """Edit each image by its own edits; those of one kind are applied to all their images at once.

    Edits act in the order scene, lens, tone, print, file, whatever order they are given in. The result for an image
    depends, bit for bit, on that image and its edits alone.

    Args:
        images: (B, 3, H, W) float32 in 0..1, sides of at least 64.
        edits: B sequences, each with at most one edit per attribute.

    Raises:
        EditError: shapes, lengths or values do not fit, an edit is unknown, or an attribute is edited twice.
    """
    _check(images, edits)
    jobs = _jobs(edits, known or taxonomy())
    if not jobs:
        return images.clone()
    edited = images.clone()
    for state, uses in jobs:
        assert state.edit is not None
        rows = [row for row, _ in uses]
        strength = [state.strength_at(edit.severity) for _, edit in uses]
        edited[rows] = state.edit(edited[rows], strength, [edit.seed for _, edit in uses])
    return edited


def _jobs(edits: Sequence[Sequence[Edit]], known: Taxonomy) -> list[tuple[State, list[tuple[int, Edit]]]]:
    """States to be produced, in order of application, each with the images and edits that want it."""
    groups: dict[tuple[int, str, str], tuple[State, list[tuple[int, Edit]]]] = {}
    for row, of_image in enumerate(edits):
        names = [edit.attribute for edit in of_image]
        if len(set(names)) < len(names):
            raise EditError(f"image {row}: an attribute is edited twice: {', '.join(names)}")
        for edit in of_image:
            _, state = resolve(edit, known)
            key = (STEPS.index(state.step), edit.attribute, edit.state)
            groups.setdefault(key, (state, []))[1].append((row, edit))
    return [groups[key] for key in sorted(groups)]


def _check(images: Tensor, edits: Sequence[Sequence[Edit]]) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise EditError(f"expected images of shape (B, 3, H, W), found {tuple(images.shape)}")
    if not images.is_floating_point():
        raise EditError(f"expected floats in 0..1, found {images.dtype}")
    if min(images.shape[-2:]) < SMALLEST_SIDE:
        raise EditError(f"edits need sides of at least {SMALLEST_SIDE} pixels, found {tuple(images.shape[-2:])}")
    if len(edits) != len(images):
        raise EditError(f"{len(images)} images but edits for {len(edits)}")


def draw_edits(
    rng: np.random.Generator,
    count: int,
    known: Taxonomy,
    *,
    avoid: frozenset[str] = frozenset(),
) -> tuple[Edit, ...]:
    """Draw `count` edits of distinct attributes, none of which touches what another one touches.

    Attributes are equally likely, then states of the attribute; severity is uniform in 0..1.

    Args:
        avoid: quantities (`State.touches`) to leave alone; `absent` gives those that a photograph lacks.

    Raises:
        EditError: there are not that many edits that go together.
    """
    pool = list(known.attributes)
    drawn: list[Edit] = []
    touched = avoid
    for _ in range(count):
        choices = [(one, states) for one in pool if (states := [s for s in one.states if not s.touches & touched])]
        if not choices:
            raise EditError(f"cannot draw {count} edits that go together")
        attribute, states = choices[int(rng.integers(len(choices)))]
        state = states[int(rng.integers(len(states)))]
        severity = round(float(rng.uniform()), 4)
        drawn.append(Edit(attribute.name, state.name, severity, int(rng.integers(_SEEDS, dtype=np.uint64))))
        touched |= state.touches
        pool.remove(attribute)
    return tuple(drawn)


def absent(images: Tensor) -> list[frozenset[str]]:
    """Quantities that each photograph lacks, so that no edit can change them: a grey one has no colour to lose."""
    chroma = (images.amax(dim=1) - images.amin(dim=1)).mean(dim=(1, 2))
    return [frozenset({"colour"}) if value < GREY_CHROMA else frozenset() for value in chroma.tolist()]


def edits_to_json(edits: Sequence[Edit]) -> str:
    """A JSON list; `edits_from_json` gives equal edits back."""
    return json.dumps([asdict(edit) for edit in edits])


def edits_from_json(text: str, known: Taxonomy | None = None) -> tuple[Edit, ...]:
    """Read what `edits_to_json` wrote.

    Raises:
        EditError: not such a list, or an attribute or state that the taxonomy does not have.
    """
    try:
        edits = TypeAdapter(tuple[Edit, ...]).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise EditError(f"edits: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for edit in edits:
        resolve(edit, known or taxonomy())
    return edits


def edited_copies(photograph: Image.Image, edits: Sequence[Sequence[Edit]]) -> list[Image.Image]:
    """One copy of the photograph for each list of edits."""
    import torch

    with torch.inference_mode():
        changed = apply_edits(_pixels(photograph).repeat(len(edits), 1, 1, 1), edits)
        arrays = (changed.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in arrays]


def lacking(photograph: Image.Image) -> frozenset[str]:
    """Quantities that no edit can change in this photograph: a grey one has no colour to lose."""
    return absent(_pixels(photograph))[0]


def _pixels(photograph: Image.Image) -> Tensor:
    """(1, 3, H, W) in 0..1."""
    import torch

    array = np.asarray(photograph.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0)


def edit_labels(synthetic_edits: str | None) -> list[str] | None:
    """'attribute: state' of each known edit; None for a photograph as it was taken."""
    if not isinstance(synthetic_edits, str):
        return None
    return labels_of(edits_from_json(synthetic_edits))


def labels_of(edits: Iterable[Edit]) -> list[str]:
    """'attribute: state' of each edit, in alphabetical order."""
    return sorted(f"{edit.attribute}: {edit.state}" for edit in edits)


# Spoilt pictures: no rater was shown a photograph that a fault has ruined, or a frame that shows nothing. A model of
# people's ratings has seen photographs alone, so what it says of a black frame or of pure noise is an accident. Some of
# its training scores are therefore those of spoilt pictures, set by rule (`calm.instructions.stage`).
EMPTY = ("black", "white", "grey", "static")
RUINED = ("sharpness.blurred", "noise.noisy", "compression.compressed", "brightness.underexposed")
SPOILT = (*EMPTY, *RUINED)
_LEAST_SEVERITY = 0.5  # a fault that is hardly seen ruins nothing
_TONES = {"black": 0, "grey": 128, "white": 255}


def spoil(photograph: Image.Image, how: str, *names: str) -> Image.Image:
    """The photograph spoilt in one of the ways SPOILT.

    Args:
        names: what the draw of severity and grain depends on, beside `how`.
    """
    shape = (*photograph.size[::-1], 3)
    if how == "static":
        return Image.fromarray(stream(0, how, *names).integers(256, size=shape, dtype=np.uint8))
    if how in EMPTY:
        return Image.fromarray(np.full(shape, _TONES[how], dtype=np.uint8))
    if (short := min(photograph.size)) < SMALLEST_SIDE:
        width, height = (round(side * SMALLEST_SIDE / short) for side in photograph.size)
        photograph = photograph.resize((width, height), Image.Resampling.BICUBIC)
    attribute, state = how.split(".")
    severity = float(stream(0, how, *names).uniform(_LEAST_SEVERITY, 1))
    return edited_copies(photograph, [[Edit(attribute, state, severity, derive(0, "grain", how, *names))]])[0]
