"""Edits as tasks meet them: labels of those a dataset made, copies of a photograph with those a task makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from calm.attributes.edits import Edit


def edited_copies(photograph: Image, edits: Sequence[Sequence[Edit]]) -> list[Image]:
    """One copy of the photograph for each list of edits."""
    import torch
    from PIL import Image as pillow

    from calm.attributes.edits import apply_edits

    with torch.inference_mode():
        changed = apply_edits(_pixels(photograph).repeat(len(edits), 1, 1, 1), edits)
        arrays = (changed.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [pillow.fromarray(array) for array in arrays]


def lacking(photograph: Image) -> frozenset[str]:
    """Quantities that no edit can change in this photograph: a grey one has no colour to lose."""
    from calm.attributes.edits import absent

    return absent(_pixels(photograph))[0]


def _pixels(photograph: Image) -> Tensor:
    """(1, 3, H, W) in 0..1."""
    import torch

    array = np.asarray(photograph.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0)


def edit_labels(synthetic_edits: str | None) -> list[str] | None:
    """'attribute: state' of each known edit; None for a photograph as it was taken."""
    from calm.attributes.edits import edits_from_json

    if not isinstance(synthetic_edits, str):
        return None
    return labels_of(edits_from_json(synthetic_edits))


def labels_of(edits: Iterable[Edit]) -> list[str]:
    """'attribute: state' of each edit, in alphabetical order."""
    return sorted(f"{edit.attribute}: {edit.state}" for edit in edits)
