"""The table of all datasets in docs/datasets.md, made from their cards.

`python -m calm.data.inventory.cards` writes it; a test holds it true.
"""

from __future__ import annotations

from pathlib import Path

from calm.data import sources
from calm.data.inventory.counts import ways
from calm.io import atomic_file

PAGE = Path("docs/datasets.md")
BEGIN, END = "<!-- cards: python -m calm.data.inventory.cards -->", "<!-- end of cards -->"


def table() -> str:
    """One row for every dataset, ordered by name."""
    lines = ["| name | dataset | what it has | licence | how to get it |", "| --- | --- | --- | --- | --- |"]
    for name in sources.names():
        kind = sources.source_type(name)
        card = kind.card
        title = f"[{card.title}]({card.home})" if card.home.startswith("http") and " " not in card.home else card.title
        cells = (f"`{name}`", title, f"{card.task}; {card.size}", card.licence, ways(kind))
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its table made anew."""
    before, rest = text.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    with atomic_file(PAGE) as part:
        part.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
