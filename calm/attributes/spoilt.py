"""Pictures that no rater was shown: photographs that a fault has ruined, and frames that show nothing.

A model of people's ratings has seen photographs alone, so what it says of a black frame or of pure noise is an
accident. Some of its training scores are therefore those of spoilt pictures, set by rule (`calm.instructions.stage`).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from calm.attributes.edits import SMALLEST_SIDE, Edit, edited_copies
from calm.seeds import derive, stream

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
