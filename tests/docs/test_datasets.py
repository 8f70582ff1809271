"""docs/datasets.md has every dataset as its card says."""

from __future__ import annotations

import re
from pathlib import Path

from calm.data import inventory, sources

PAGE = (Path(__file__).parents[2] / inventory.PAGE).read_text(encoding="utf-8")


def test_the_table_of_datasets_is_the_one_their_cards_make() -> None:
    assert inventory.page(PAGE) == PAGE, "run `python -m calm.data.inventory`"


def test_the_terms_that_the_page_accepts_are_those_of_a_card() -> None:
    accepted = re.findall(r"(\w+): \{accept: ([\w.-]+)\}", PAGE)
    assert accepted
    assert all(sources.source_type(name).card.acceptance == words for name, words in accepted)
