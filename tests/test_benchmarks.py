"""What a benchmark holds calm against gives the same answers, whatever has changed since it was measured."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from benchmarks.personalised import TOLERANCE, Rater, one_by_one, shared
from benchmarks.scoring import generate_loop
from calm.assistant import Calm
from tests import tiny


@pytest.mark.parametrize("name", sorted(path.stem for path in (tiny.REPOSITORY / "benchmarks").glob("*.py")))
def test_every_benchmark_can_be_imported(name: str) -> None:
    assert import_module(f"benchmarks.{name}").__doc__


@pytest.fixture(scope="module")
def calm(trained_template: Any) -> Calm:
    return Calm.from_pretrained(trained_template.layout.finetuned("scores"), device="cpu", dtype="float32")


def test_a_loop_of_generate_gives_the_answers_of_score(calm: Calm) -> None:
    pictures = tiny.pictures(4)
    assert generate_loop(calm, pictures) == [score.raw for score in calm.score(pictures, batch_size=2)]


def test_whole_prompts_give_the_scores_of_a_shared_support_set(calm: Calm) -> None:
    rater = Rater.drawn(tiny.pictures(5), support=3, draws=2)
    whole = one_by_one(calm, rater)
    assert whole.shape == (4, 2) and np.ptp(whole, axis=0).min() > TOLERANCE
    np.testing.assert_allclose(shared(calm, rater), whole, atol=TOLERANCE)
