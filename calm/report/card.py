"""`calm release`: a model that has learnt from every score, as one file, and the card that says how well it does.

The figures are of the same recipe without the held-out photographs.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from calm import __version__
from calm.data.sources import source_type
from calm.io import atomic_file, sha256_file
from calm.layout import Layout
from calm.model.build import load_config
from calm.model.released import CARD, WEIGHTS, write_released
from calm.params import Params
from calm.report.stage import render
from calm.report.tables import sections
from calm.training.finetune import train_released


def release(folder: Path, params: Params, layout: Layout) -> None:
    """Train on every score and write the model, with a card, into `folder`.

    Raises:
        FileNotFoundError: results of the held-out photographs are not there; the message says what to run.
        CheckpointError: it is not trained with an adapter.
    """
    roles = params.data.roles.model_dump()
    cards = {name: source_type(name).card for names in roles.values() for name in names}
    # Raters whose taste no score was learnt from say nothing of this model.
    strangers = not set(roles["raters"]) & set(roles["scores"])
    results = [one for one in sections(params, layout) if one.name != "personalised" or not strangers]
    with TemporaryDirectory(prefix="calm-") as temporary:
        whole = Path(temporary) / "whole"
        train_released(whole, params, layout)
        folder.mkdir(parents=True, exist_ok=True)
        write_released(whole, folder, {"name": f"calm {__version__}"})
    weights, config = folder / WEIGHTS, load_config(folder)
    page = {
        "version": __version__,
        "profile": params.profile,
        "publics": [{"title": cards[public["name"]].title, **public} for public in config.publics],
        "cards": list(cards.values()),
        "roles": roles,
        "spoilt": round(100 * params.instructions.spoilt.share),
        "seed": params.seed,
        "level": f"{100 * params.evaluation.bootstrap.level:g} %",
        "sections": results,
        "file": WEIGHTS,
        "size": f"{weights.stat().st_size / 1e6:.1f}",
        "sha256": sha256_file(weights),
        "parts": dict(sorted(config.provenance.items())),
    }
    with atomic_file(folder / CARD) as part:
        part.write_text(render("card.md.j2", page), encoding="utf-8")
