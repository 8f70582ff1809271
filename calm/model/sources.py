"""Sources of content: what the MFAM's fully connected layers read of a whole photograph, each by a layer of its own.

Their names are types of `calm.params`; what they hold is computed by `calm.model.mfam`.
"""

from __future__ import annotations

from typing import get_args

from calm.model.settings import ClassSource, EncoderSource, LevelSource

LEVEL_SOURCES: dict[str, tuple[str, ...]] = {name: tuple(name.split("_")) for name in get_args(LevelSource)}
"""Level and statistic over its places, by name of the source."""
CLASS_SOURCES: tuple[str, ...] = get_args(ClassSource)
WHOLE_SOURCES: tuple[str, ...] = (*get_args(EncoderSource), *CLASS_SOURCES)  # that no level has
