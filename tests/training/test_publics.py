"""Publics with a taste of their own: who is seen how often, and one model that answers each as it was taught."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from calm.assistant import Calm
from calm.data.store import tables
from calm.data.store.tables import INSTRUCTION
from calm.instructions import SCORE_PROMPT, as_public, format_score, messages
from calm.io import write_table
from calm.model.configuration import CalmConfig
from calm.training.features import Key
from calm.training.finetune import finetune, learnt_rows
from calm.training.scores import TAUGHT, balanced, learnt_publics, taught
from calm.training.tuning import numbers_of_publics
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


class Told:
    """Features whose one channel is the photograph's number."""

    def pooled(self, keys: Sequence[Key]) -> np.ndarray:
        return np.array([[float(key[1])] for key in keys])


def rated(name: str, scores: Sequence[float], **same: Any) -> pd.DataFrame:
    """Instructions to score the photographs 0, 1, ... of a dataset."""
    asked = [messages(as_public(SCORE_PROMPT, name))] * len(scores)
    items = {"item_ids": [[str(number)] for number in range(len(scores))], "score": list(scores), "messages": asked}
    answers = [format_score(score) for score in scores]
    return pd.DataFrame({"dataset": name, **items, "answer": answers, "spoilt": None, "origin": "human", **same})


def test_a_small_public_is_taught_its_line_on_others_photographs() -> None:
    large, small = (
        rated("large", [9 - number / 10 for number in range(40)]),
        rated("small", [2 + n / 4 for n in range(20)]),
    )
    found = taught(pd.concat([large, small], ignore_index=True), 1.0, Told(), seed=17)  # type: ignore[arg-type]
    assert set(found["public"]) == {"small"} and set(found["dataset"]) == {"large"}
    assert set(found["origin"]) == {TAUGHT}
    numbers = found["item_ids"].str[0].astype(int)
    assert sorted(numbers) == list(range(40))
    np.testing.assert_allclose(found["score"], np.minimum(2 + numbers / 4, 6.75), atol=0.2)  # no more than it ever gave
    assert all(answer == format_score(score) for answer, score in zip(found["answer"], found["score"], strict=True))
    assert all("as the raters of small would" in said[0]["content"] for said in found["messages"])
    config = CalmConfig(publics=[{"name": "large"}, {"name": "small"}])
    assert numbers_of_publics(found, config).tolist() == [1] * 40
    assert numbers_of_publics(pd.concat([large, found]), config).tolist() == [0] * 40 + [1] * 40


def test_a_share_of_them_is_drawn_by_seed_and_none_without_a_share() -> None:
    rows = pd.concat([rated("large", [5.0, 6.0] * 20), rated("small", [3.0, 4.0] * 10)], ignore_index=True)
    half, again, other = (taught(rows, 0.5, Told(), seed) for seed in (17, 17, 18))  # type: ignore[arg-type]
    assert len(half) == 20
    pd.testing.assert_frame_equal(half, again)
    assert half["item_ids"].tolist() != other["item_ids"].tolist()
    assert taught(rows, 0.0, Told(), 17).empty  # type: ignore[arg-type]


def test_what_spoils_a_photograph_costs_every_public_as_much_and_empty_frames_are_worth_least() -> None:
    large = rated("large", [7.0] * 10)
    spoilt = [rated("large", [5.5], spoilt="noise.noisy"), rated("large", [1.0], spoilt="black")]
    small = rated("small", [4 + number / 10 for number in range(10)])
    found = taught(pd.concat([large, *spoilt, small], ignore_index=True), 1.0, Told(), 17)  # type: ignore[arg-type]
    (least,) = found.loc[found["spoilt"] == "black", "score"]
    assert least == 4.0
    small["score"] += 2 * (small["item_ids"].str[0] == "9")  # a public that goes up to 6.9
    found = taught(pd.concat([large, *spoilt, small], ignore_index=True), 1.0, Told(), 17)  # type: ignore[arg-type]
    (noisy,) = found.loc[found["spoilt"] == "noise.noisy", "score"]
    (plain,) = found.loc[(found["item_ids"].str[0] == "0") & found["spoilt"].isna(), "score"]
    assert noisy == pytest.approx(max(4.0, plain - 1.5))


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
