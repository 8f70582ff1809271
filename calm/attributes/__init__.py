"""What can be right or wrong with a photograph: a taxonomy, the edits that produce each state, and words for them."""

from typing import Literal, get_args

Level = Literal["low", "middle", "high"]
LEVELS: tuple[str, ...] = get_args(Level)
