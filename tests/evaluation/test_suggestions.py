"""Reading suggestions and deciding whether to make any."""

from __future__ import annotations

import numpy as np
import pytest

from calm.evaluation.statistics.decisions import cross_fitted, figures
from calm.evaluation.statistics.metrics import Bootstrap

BOOTSTRAP = Bootstrap(200, 0.95, 0)


def test_thresholds_come_from_the_other_half_and_find_a_clear_gap() -> None:
    groups = [f"g{i // 2}" for i in range(40)]
    edits = [["a: b"] if i % 2 else [] for i in range(40)]
    ranked, strengths = [["a: b", "c: d"]] * 40, [[2.0, -1.0] if i % 2 else [1.0, -2.0] for i in range(40)]
    made = cross_fitted(ranked, strengths, edits, groups, np.random.default_rng(0))
    assert made == [["a: b"] if i % 2 else [] for i in range(40)]
    alone = cross_fitted(ranked, strengths, [["a: b"]] * 40, groups, np.random.default_rng(0))
    assert alone == ranked  # no unedited photograph: nothing tells when to be silent


def test_precision_and_recall_are_pooled_counts() -> None:
    made = [["a: x", "b: y"], [], ["a: z"], ["c: w"]]
    edits = [["a: x"], ["b: y"], ["a: x", "b: y"], []]
    found = figures(made, edits, list("1234"), BOOTSTRAP)
    assert found["state"]["precision"]["value"] == pytest.approx(1 / 4)
    assert found["state"]["recall"]["value"] == pytest.approx(1 / 4)
    assert found["attribute"]["precision"]["value"] == pytest.approx(2 / 4)
    assert found["attribute"]["f1"]["value"] == pytest.approx(2 * 2 / (4 + 4))
    assert found["unedited_left_alone"]["value"] == 0 and found["edited_left_alone"]["value"] == pytest.approx(
        1 / 3, abs=1e-6
    )
    silent = figures([[]] * 4, edits, list("1234"), BOOTSTRAP)
    assert silent["state"]["precision"]["value"] is None and silent["state"]["recall"]["value"] == 0
