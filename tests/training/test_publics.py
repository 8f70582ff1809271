"""Publics with a taste of their own: who is seen how often, and one model that answers each as it was taught."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pandas as pd
import pytest

from calm.assistant import Calm
from calm.data.store import tables
from calm.data.store.tables import INSTRUCTION
from calm.instructions import SCORE_PROMPT, as_public, format_score, messages
from calm.io import write_table
from calm.training.finetune import finetune, learnt_rows
from calm.training.scores import balanced, learnt_publics
from tests import tiny

CONTRARY = "contrary"  # a public that gives 11 - s where the other gives s


def rows(**counts: int) -> pd.DataFrame:
    """So many scored rows of each dataset, and two comments."""
    scored = [
        {"dataset": name, "score": 1.0 + number, "origin": "human"}
        for name, count in counts.items()
        for number in range(count)
    ]
    return pd.DataFrame([*scored, *[{"dataset": "drawn", "score": None, "origin": "synthetic_grammar"}] * 2])


@pytest.mark.parametrize(("balance", "small"), [(1.0, 4), (0.5, 2 * 4), (0.0, 4 * 4)])
def test_small_publics_are_repeated_and_comments_are_not(balance: float, small: int) -> None:
    found = balanced(rows(large=16, small=4), balance)
    counts = found["dataset"].value_counts()
    assert (counts["large"], counts["small"], counts["drawn"]) == (16, small, 2)
    assert found.index.is_unique


def test_a_single_public_is_left_as_it_is() -> None:
    alone = rows(drawn=7)
    pd.testing.assert_frame_equal(balanced(alone, 0.5), alone)


def test_publics_stand_in_the_order_of_params_with_the_scores_that_they_gave() -> None:
    found = learnt_publics(rows(small=3, large=5), ["large", "small", "absent"])
    assert [public["name"] for public in found] == ["large", "small"]
    assert {public["origin"] for public in found} == {"human"}
    assert found[0]["steps"][0] == 1.0 and found[0]["steps"][50] == 3.0 and found[0]["steps"][-1] == 5.0
    by_rule = rows(large=2).assign(spoilt="noise", score=1.0)
    with_spoilt = pd.concat([rows(small=3, large=5).assign(spoilt=None), by_rule], ignore_index=True)
    assert learnt_publics(with_spoilt, ["large", "small"]) == found


def test_one_model_answers_each_public_as_it_was_taught(trained_world: Any) -> None:
    layout = trained_world.layout
    shutil.copytree(layout.prepared(tiny.DATASET), layout.prepared(CONTRARY))
    learnt = tables.instructions(layout, "scores")
    learnt = learnt[learnt["score"].notna()]
    turned = learnt.assign(
        dataset=CONTRARY,
        score=11 - learnt["score"],
        answer=[format_score(11 - score) for score in learnt["score"]],
        messages=[messages(as_public(SCORE_PROMPT, CONTRARY))] * len(learnt),
    )
    both = pd.concat([learnt, turned], ignore_index=True)
    write_table(layout.instructions / "scores.parquet", both, INSTRUCTION)
    roles = trained_world.params().data.roles.model_copy(update={"scores": [tiny.DATASET, CONTRARY]})
    params = trained_world.params(finetune__scores__visual__steps=25)
    params = params.model_copy(update={"data": params.data.model_copy(update={"roles": roles})})
    finetune("scores", params, layout)

    calm = Calm.from_pretrained(layout.finetuned("scores"), device="cpu")
    assert calm.publics == [tiny.DATASET, CONTRARY]
    pictures = [tiny.picture(number) for number in range(tiny.PICTURES - len(tiny.TEST))]
    usual, contrary = (
        np.array([score.regression for score in calm.score(pictures, public=public)]) for public in (None, CONTRARY)
    )
    assert np.corrcoef(usual, contrary)[0, 1] < 0
    named = calm.score(pictures[:1], public=tiny.DATASET)
    assert named == calm.score(pictures[:1])  # the first is the default
    assert named[0].percentile is not None and 0 <= named[0].percentile <= 100
    with pytest.raises(ValueError, match=f"the taste of 'nobody'; it knows: {tiny.DATASET}, {CONTRARY}"):
        calm.score(pictures[:1], public="nobody")


def test_a_release_learns_from_held_out_scores_and_from_no_held_out_comment(trained_template: Any) -> None:
    layout = trained_template.layout
    usual, everything = (learnt_rows("scores", layout, label) for label in ("finetune", "release"))
    assert set(usual["split"]) == {"train"}
    more = everything.loc[everything.index.difference(usual.index)]
    assert len(more) and set(more["split"]) == {"test"} and more["score"].notna().all()
