"""The bank of guidance texts that pre-training reads."""

from __future__ import annotations

import pandas as pd

from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.data.store.text import clean, escape_markers

MOST_CHARACTERS = 400  # of one text


class TextBank:
    """Guidance texts by attribute and state.

    Whoever wrote them, they are data: control characters leave, the openings of special tokens are made harmless, long
    texts are cut, empty ones are left out.

    Args:
        frame: rows of `calm.data.store.tables.GUIDANCE`.

    Raises:
        ValueError: a state of the taxonomy has no text, or a row names one that it does not have.
    """

    def __init__(self, frame: pd.DataFrame, known: Taxonomy | None = None) -> None:
        self.taxonomy = known or taxonomy()
        self._texts: dict[tuple[str, str], list[str]] = {}
        for attribute, state, text in zip(frame["attribute"], frame["state"], frame["text"], strict=True):
            if safe := escape_markers(clean(text, MOST_CHARACTERS)):
                self._texts.setdefault((attribute, state), []).append(safe)
        for attribute, state in self._texts:
            self.taxonomy.attribute(attribute).state(state)
        missing = [f"{attribute}.{state}" for attribute, state in self.states if (attribute, state) not in self._texts]
        if missing:
            raise ValueError(f"no guidance texts for {', '.join(missing)}: run `calm generate-texts` again")

    @property
    def states(self) -> list[tuple[str, str]]:
        """(attribute, state) of the whole taxonomy, in its order, unchanged first within an attribute."""
        return [(one.name, state.name) for one in self.taxonomy.attributes for state in one.all_states]

    def texts(self, attribute: str, state: str) -> list[str]:
        """Texts of one state, in the order of the table.

        Raises:
            ValueError: the taxonomy has no such attribute or state.
        """
        self.taxonomy.attribute(attribute).state(state)
        return list(self._texts[attribute, state])

    def __len__(self) -> int:
        return sum(map(len, self._texts.values()))
