"""`calm release`: what was trained, as one file, and the card that says what it is and how well it does."""

from __future__ import annotations

from pathlib import Path

from calm.data.sources import source_type
from calm.io import atomic_file, sha256_file
from calm.layout import Layout
from calm.model.build import load_config
from calm.model.released import WEIGHTS, write_released
from calm.params import Params
from calm.report.page import render
from calm.report.tables import sections
from calm.version import __version__

CARD = "MODEL_CARD.md"


def release(folder: Path, params: Params, layout: Layout) -> None:
    """Write the model of models/finetune/scores, and a card with its results, into `folder`.

    Raises:
        FileNotFoundError: the model or its results are not there; the message says what to run.
        CheckpointError: it was not trained with an adapter.
    """
    roles = params.data.roles.model_dump()
    cards = {name: source_type(name).card for names in roles.values() for name in names}
    people = " and ".join(cards[name].title.partition(":")[0] for name in roles["scores"])
    public = f"scored as by the people of {people}"
    results = sections(params, layout)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS
    write_released(layout.finetuned("scores"), folder, {"name": f"calm {__version__}", "public": public})
    page = {
        "version": __version__,
        "profile": params.profile,
        "public": public,
        "cards": list(cards.values()),
        "roles": roles,
        "seed": params.seed,
        "level": f"{100 * params.evaluation.bootstrap.level:g} %",
        "sections": results,
        "file": WEIGHTS,
        "size": f"{weights.stat().st_size / 1e6:.1f}",
        "sha256": sha256_file(weights),
        "parts": dict(sorted(load_config(folder).provenance.items())),
    }
    with atomic_file(folder / CARD) as part:
        part.write_text(render("card.md.j2", page), encoding="utf-8")
