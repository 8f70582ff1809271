"""Other pages that show the report's figures: the card of a released model (`calm release`), README.md's table.

A card's figures are of the same recipe without the held-out photographs. The table is written from results/ by `make
results`.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from calm import __version__
from calm.data.sources import source_type
from calm.io import atomic_file, sha256_file
from calm.layout import Layout
from calm.model.build import load_config
from calm.model.pretrained import resolve_dtype
from calm.model.released import CARD, WEIGHTS, write_released
from calm.params import Params, load_params
from calm.report.stage import render, table_cell
from calm.report.tables import SHOWN, Section, sections
from calm.training.finetune import train_released

README = Path("README.md")
_BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)
_COLUMNS = ("task", "figure", "value", "{level} interval", "beside it", "labels")


def release(folder: Path, params: Params, layout: Layout) -> None:
    """Train on every score and write the model, with a card, into `folder`.

    Raises:
        FileNotFoundError: results of the held-out photographs are not there; the message says what to run.
        CheckpointError: it is not trained with an adapter.
    """
    results = sections(params, layout)  # before hours of training, if they are missing
    with TemporaryDirectory(prefix="calm-") as temporary:
        whole = Path(temporary) / "whole"
        train_released(whole, params, layout)
        folder.mkdir(parents=True, exist_ok=True)
        write_released(whole, folder, {"name": f"calm {__version__}"})
    write_card(folder, params, results)


def write_card(folder: Path, params: Params, results: Sequence[Section]) -> None:
    """The card of the model in `folder`, whose recipe had these results."""
    roles = params.data.roles.model_dump()
    cards = {name: source_type(name).card for names in roles.values() for name in names}
    # Raters whose taste no score was learnt from say nothing of this model.
    strangers = not set(roles["raters"]) & set(roles["scores"])
    weights, config = folder / WEIGHTS, load_config(folder)
    page = {
        "version": __version__,
        "profile": params.profile,
        "publics": [{"title": cards[public["name"]].title, **public} for public in config.publics],
        "cards": list(cards.values()),
        "roles": roles,
        "verdicts": params.instructions.verdicts,
        "spoilt": round(100 * params.instructions.spoilt.share),
        "seed": params.seed,
        "level": f"{100 * params.evaluation.bootstrap.level:g} %",
        "sections": [one for one in results if one.name != "personalised" or not strangers],
        "file": WEIGHTS,
        "size": f"{weights.stat().st_size / 1e6:.1f}",
        "sha256": sha256_file(weights),
        "parts": dict(sorted(config.provenance.items())),
        "machine": ", ".join(_machine(params)),
    }
    with atomic_file(folder / CARD) as part:
        part.write_text(render("card.md.j2", page), encoding="utf-8")


def _machine(params: Params) -> tuple[str, ...]:
    """What decides how sums are rounded and in which order they are added up, and so a training's last bits."""
    units = torch.backends.cpu.get_cpu_capability() + (" AMX" if torch.cpu.get_capabilities().get("amx_bf16") else "")
    processor = f"{platform.machine()} {units}, {torch.get_num_threads()} threads"
    rounded = str(resolve_dtype(params.runtime)).removeprefix("torch.")
    return f"torch {torch.__version__}", processor, f"frozen parts in {rounded}"


def results_table(found: Sequence[Section], params: Params) -> str:
    """A Markdown table of the first figures of every task, and the profile and seed that they are of."""
    level = f"{100 * params.evaluation.bootstrap.level:g} %"
    rows = [
        (section.task.title, row.label, row.value, row.interval or row.note, row.beside, section.judged_by(row))
        for section in found
        for row in section.rows[:SHOWN]
    ]
    head = [tuple(column.format(level=level) for column in _COLUMNS), ("---",) * len(_COLUMNS)]
    lines = ["| " + " | ".join(map(table_cell, row)) + " |" for row in [*head, *rows]]
    return "\n".join(
        [f"Profile `{params.profile}`, seed {params.seed}, photographs held out of training:", "", *lines, ""]
    )


def with_results(text: str, table: str) -> str:
    """The README's text with the table between its markers.

    Raises:
        ValueError: the markers are missing.
    """
    if not _BLOCK.search(text):
        raise ValueError(f"{README} has no lines <!-- results --> and <!-- /results --> to write between")
    return _BLOCK.sub(lambda block: f"{block[1]}{table}{block[2]}", text)


def main() -> None:
    """Renew the table in the README of the working directory."""
    params = load_params()
    text = README.read_text(encoding="utf-8")
    renewed = with_results(text, results_table(sections(params, Layout()), params))
    with atomic_file(README) as part:
        part.write_text(renewed, encoding="utf-8")


if __name__ == "__main__":
    main()
