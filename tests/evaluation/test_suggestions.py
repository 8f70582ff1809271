"""Reading suggestions and deciding whether to make any."""

from __future__ import annotations

import numpy as np
import pytest

from calm.attributes.naming import naming_rules, states_named
from calm.attributes.taxonomy import taxonomy
from calm.evaluation.decisions import cross_fitted, figures
from calm.evaluation.metrics import Bootstrap
from calm.evaluation.parsing import Parser, agreement, split
from calm.model.pretrained import load_text_encoder
from calm.params import load_params

BOOTSTRAP = Bootstrap(200, 0.95, 0)


@pytest.fixture(scope="module")
def parser() -> Parser:
    encoder = load_text_encoder(load_params().parts.text)
    return Parser.build(taxonomy(), lambda texts: encoder.embed(list(texts)).numpy())


def test_remedies_are_read_as_what_they_undo(parser: Parser) -> None:
    pairs = [(f"{a.name}: {s.name}", s.remedies[0]) for a in taxonomy().attributes for s in a.states]
    found = parser([f"I would {remedy}." for _, remedy in pairs])
    assert np.mean([label in labels for (label, _), labels in zip(pairs, found, strict=True)]) > 0.9


def test_unseen_remedies_are_read_far_better_than_by_chance(parser: Parser) -> None:
    found, chance = parser.held_out(), 1 / sum(len(a.states) for a in taxonomy().attributes)
    assert found["remedies"] >= 3 * sum(len(a.states) for a in taxonomy().attributes)
    assert found["attribute"] > 0.5 > 10 * chance and found["state"] > 5 * chance
    # Opposite remedies ("raise", "lower the exposure") are near one another to a sentence encoder: docs say so.
    assert found["attribute"] > found["state"]


def test_praise_and_leaving_alone_suggest_nothing(parser: Parser) -> None:
    texts = ["I would leave it as it is.", "Nothing needs to be changed here.", "", "...", "The dog is called Rex."]
    assert parser(texts) == [[], [], [], [], []]


def test_each_sentence_is_read_and_no_label_comes_twice(parser: Parser) -> None:
    remedies = taxonomy().attribute("tilt").state("clockwise").remedies
    (found,) = parser([f"I would {remedies[0]}. I would also {remedies[0]}; the dog is called Rex."])
    assert found == ["tilt: clockwise"]
    assert split("One. Two!  ; ?\nthree") == ["One", "Two", "three"]


def test_agreement_with_exact_rules_counts_what_the_rules_can_judge(parser: Parser) -> None:
    rules = naming_rules(taxonomy())
    texts = [f"I would {s.remedies[0]}." for a in taxonomy().attributes for s in a.states] + ["The dog is called Rex."]
    found = agreement(parser, lambda text: states_named(text, rules), texts)
    assert found["named_by_rules"] == found["sentences"] - 1 and found["value"] > 0.9
    nothing = agreement(parser, lambda text: set(), texts)
    assert nothing["value"] is None and "no state" in nothing["reason"]


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
