"""Labels made from known edits: scores, raters. They are synthetic, and every row says so in `origin`.

Score of a picture with edits e = 1..k, of harm h_e (taxonomy, 0..1) and severity s_e (0..1):

    score = 1 + 7.5 * product over e of (1 - h_e * (0.4 + 0.6 * s_e))

A photograph as it was taken has 8.5; each edit takes a share of what is left, so further edits never help and the
score stays above 1. Severity 0 of an edit is already visible (`calm.attributes.taxonomy.State`), hence the 0.4.

A simulated rater likes or dislikes attribute states: a hidden preference per state, drawn once from N(0, 1.5), is added
for each edit (times 0.4 + 0.6 * s_e), then noise from N(0, 0.3), then the scale's ends clip and the tenths round.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from calm.seeds import stream

if TYPE_CHECKING:
    from calm.attributes.edits import Edit
    from calm.attributes.taxonomy import Taxonomy

SCORE_MIN, SCORE_MAX = 1.0, 10.0
UNEDITED_SCORE = 8.5
_VISIBLE = 0.4  # part of an edit's effect that is there at severity 0
_TASTE = 1.5
_NOISE = 0.3


def dose(edit: Edit) -> float:
    """How much of an edit's full effect is there, 0.4..1."""
    return _VISIBLE + (1 - _VISIBLE) * edit.severity


def edit_score(edits: Iterable[Edit], taxonomy: Taxonomy) -> float:
    """The synthetic score of a picture with these edits, over 1 and at most 8.5."""
    left = 1.0
    for edit in edits:
        left *= 1 - taxonomy.attribute(edit.attribute).state(edit.state).harm * dose(edit)
    return SCORE_MIN + (UNEDITED_SCORE - SCORE_MIN) * left


def preferences(seed: int, rater_id: str, taxonomy: Taxonomy) -> dict[tuple[str, str], float]:
    """A rater's hidden liking of every (attribute, state) but the unchanged ones, in points of the scale."""
    return {
        (attribute.name, state.name): float(
            stream(seed, "preference", rater_id, attribute.name, state.name).normal(scale=_TASTE)
        )
        for attribute in taxonomy.attributes
        for state in attribute.states
    }


def rater_score(edits: Sequence[Edit], liking: dict[tuple[str, str], float], noise: float, taxonomy: Taxonomy) -> float:
    """What one simulated rater gives a picture, 1..10 in tenths; `noise` is a draw from N(0, 1)."""
    taste = sum(liking[edit.attribute, edit.state] * dose(edit) for edit in edits)
    score = edit_score(edits, taxonomy) + taste + _NOISE * noise
    return round(float(np.clip(score, SCORE_MIN, SCORE_MAX)), 1)


def rater_items(seed: int, rater_id: str, items: pd.DataFrame, count: int) -> list[str]:
    """The items one rater sees: every group once in seeded order before any group twice, at most `count`.

    Args:
        items: columns item_id, group; the result does not depend on the order of the rows.
    """
    rng = stream(seed, "rater-items", rater_id)
    queues = []
    for _, members in items.sort_values("item_id").groupby("group", sort=True):
        queues.append(list(rng.permutation(members["item_id"].to_numpy())))
    chosen: list[str] = []
    while queues and len(chosen) < count:
        order = rng.permutation(len(queues))
        chosen.extend(str(queues[i].pop()) for i in order[: count - len(chosen)])
        queues = [queue for queue in queues if queue]
    return chosen


def crowd_ratings(edits: dict[str, tuple[Edit, ...]], taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """One row of RATING per item: the score its edits give it."""
    return [
        _row(item_id, None, edit_score(made, taxonomy), "synthetic_edits") for item_id, made in sorted(edits.items())
    ]


def rater_ratings(
    seed: int, items: pd.DataFrame, edits: dict[str, tuple[Edit, ...]], raters: int, per_rater: int, taxonomy: Taxonomy
) -> list[dict[str, Any]]:
    """Rows of RATING of all simulated raters, `per_rater` each (or as many as there are items)."""
    rows = []
    for number in range(raters):
        rater_id = f"synthetic-r{number:02d}"
        liking = preferences(seed, rater_id, taxonomy)
        for item_id in sorted(rater_items(seed, rater_id, items, per_rater)):
            noise = float(stream(seed, "rater-noise", rater_id, item_id).normal())
            rows.append(
                _row(item_id, rater_id, rater_score(edits[item_id], liking, noise, taxonomy), "synthetic_rater")
            )
    return rows


def _row(item_id: str, rater_id: str | None, score: float, origin: str) -> dict[str, Any]:
    return {
        "item_id": item_id,
        "rater_id": rater_id,
        "score": score,
        "score_min": SCORE_MIN,
        "score_max": SCORE_MAX,
        "origin": origin,
    }
