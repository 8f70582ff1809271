"""The card of a released model: whose taste, which data under which terms, which figures, which file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from calm.data.sources import source_type
from calm.io import sha256_file
from calm.layout import Layout
from calm.model.pretrained import resolve_dtype
from calm.model.released import FOLDER, WEIGHTS, metadata
from calm.params import Params
from calm.report import tables
from calm.report.pages import CARD, release
from tests.evaluation.calm_world import World


@pytest.fixture(autouse=True)
def _real_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawn photographs of the tests are no dataset with a card."""
    monkeypatch.setattr("calm.report.pages.source_type", lambda name: source_type("photos"))


def test_a_card_says_whose_taste_it_is_and_how_well_it_does(
    world: World, trained_template: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def trained(out: Path, params: Params, layout: Layout) -> None:
        shutil.copytree(trained_template.layout.finetuned("scores"), out)

    monkeypatch.setattr("calm.report.pages.train_released", trained)
    release(tmp_path / "released", world.params, world.layout)
    card = (tmp_path / "released" / CARD).read_text(encoding="utf-8")
    rows = [row for section in tables.sections(world.params, world.layout) for row in section.rows]
    measured = [row for row in rows if row.interval]
    assert measured and all(row.label in card and f"{row.value} | {row.interval}" in card for row in measured)
    assert sha256_file(tmp_path / "released" / WEIGHTS) in card
    assert metadata(tmp_path / "released")["name"] in card
    rounded = str(resolve_dtype(world.params.runtime)).removeprefix("torch.")
    assert f"torch {torch.__version__}, " in card and torch.backends.cpu.get_cpu_capability() in card
    assert f"frozen parts in {rounded}" in card


def test_without_results_it_is_told_what_to_run(world: World, tmp_path: Path) -> None:
    shutil.rmtree(world.layout.result("scoring"))
    with pytest.raises(FileNotFoundError, match="calm evaluate scoring"):
        release(tmp_path / "released", world.params, world.layout)
    assert not (tmp_path / "released").exists()


def test_the_card_in_the_package_is_of_the_file_beside_it() -> None:
    card = (FOLDER / CARD).read_text(encoding="utf-8")
    assert sha256_file(FOLDER / WEIGHTS) in card
    assert "for research and learning only" in card and "| `para` (default) | PARA" in card
