"""CALM in transformers' conventions: configuration, encoder, MFAM, model, processor, readouts.

Here are the sources of content: what the MFAM's fully connected layers read of a whole photograph, each by a layer of
its own. What they hold is computed by `calm.model.mfam`.
"""

from __future__ import annotations

from typing import Literal, get_args

LevelSource = Literal["low_mean", "low_deviation", "middle_mean", "middle_deviation", "high_mean", "high_deviation"]
# That no level has: of the encoder's end, and of the classes that it recognises, by their probabilities.
WholeSource = Literal["summary", "summary_deviation", "words"]
ContentSource = LevelSource | WholeSource

LEVEL_SOURCES: dict[str, tuple[str, ...]] = {name: tuple(name.split("_")) for name in get_args(LevelSource)}
"""Level and statistic over its places, by name of the source."""
WHOLE_SOURCES: tuple[str, ...] = get_args(WholeSource)
