"""Edited views: which edits a photograph gets depends on seed, photograph and epoch alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from calm.attributes import LEVELS
from calm.attributes.edits import absent
from calm.attributes.taxonomy import taxonomy
from calm.model.build import assemble
from calm.model.processing import byte_pixels
from calm.seeds import stream
from calm.training.features import Photographs, Views, draw_view, mirror, render
from calm.training.loop.order import Order, Visit
from tests import tiny

KEYS = [(tiny.DATASET, f"p{number}") for number in range(tiny.PICTURES)]
VISITS = [Visit(3, 0), Visit(0, 1), Visit(3, 1), Visit(5, 0)]


def views(world: Any, kept: int, seed: int = 17) -> Views:
    return Views(assemble(world.params()), Photographs(world.layout, [tiny.DATASET]), KEYS, seed, kept)


def see(views: Views, visits: list[Visit]) -> tuple[Any, Any]:
    return views.drawn(visits), views.encoded(visits)


def test_a_view_edits_each_level_at_most_once_and_without_contradiction() -> None:
    known = taxonomy()
    views = [draw_view(stream(17, "views", i), known) for i in range(300)]
    for view in views:
        assert all(known.attribute(drawn.attribute).level == level for level, drawn in view.items())
        touched = [known.attribute(drawn.attribute).touches for drawn in view.values()]
        assert sum(map(len, touched)) == len(frozenset().union(*touched))
        for drawn in view.values():
            assert (drawn.edit is None) == (drawn.state == "unchanged")
    drawn_of = {level: [view[level].attribute for view in views if level in view] for level in LEVELS}
    assert all({a.name for a in known.at(level)} == set(names) for level, names in drawn_of.items())


def test_unchanged_is_drawn_as_often_as_any_other_state() -> None:
    known = taxonomy()
    drawn = [one for i in range(2000) for one in draw_view(stream(17, "views", i), known).values()]
    for attribute in known.attributes:
        states = [one.state for one in drawn if one.attribute == attribute.name]
        expected = len(states) / len(attribute.all_states)
        assert abs(states.count("unchanged") - expected) < 4 * expected**0.5


def test_what_a_photograph_lacks_is_not_edited() -> None:
    without = absent(byte_pixels(tiny.picture(0).convert("L")).unsqueeze(0) / 255)[0]
    assert without
    for i in range(300):
        for drawn in draw_view(stream(17, "views", i), taxonomy(), without).values():
            assert not taxonomy().attribute(drawn.attribute).touches & without


def test_every_second_view_is_mirrored_and_so_is_what_is_known_of_it(tiny_template: Any) -> None:
    known, seen = taxonomy(), views(tiny_template, 0)
    visits = [Visit(number, epoch) for number in range(tiny.PICTURES) for epoch in range(40)]
    straight = [draw_view(stream(17, "view", *KEYS[visit.sample], visit.epoch), known) for visit in visits]
    told, odd = seen.drawn(visits), [visit.epoch % 2 == 1 for visit in visits]
    assert told == [mirror(view, known) if turned else view for view, turned in zip(straight, odd, strict=True)]
    sides = {"clockwise": "counter_clockwise", "counter_clockwise": "clockwise"}
    turned = [
        (before[level].state, after[level].state)
        for before, after, other in zip(straight, told, odd, strict=True)
        for level in before
        if other
    ]
    assert {before for before, after in turned if before != after} == set(sides)
    assert all(after == sides.get(before, before) for before, after in turned)
    edits = [[one.edit for one in view.values() if one.edit] for view in straight[:2]]
    pictures = [seen.photographs.unit_pixels(KEYS[0])] * 2
    even, mirrored = render(pictures, edits, seen.assembly.preprocessing)
    pixels = seen.pixels(visits[:2])
    assert pixels is not None
    assert torch.equal(pixels[0], even)
    assert torch.equal(pixels[1], mirrored.flip(-1))


@pytest.mark.parametrize("kept", [0, 2])
def test_a_view_depends_on_its_photograph_and_epoch_alone(tiny_template: Any, kept: int) -> None:
    drawn, tokens = see(views(tiny_template, kept), VISITS)
    again, alone = see(views(tiny_template, kept), VISITS[2:3])
    assert again == drawn[2:3]
    for level in LEVELS:
        torch.testing.assert_close(alone[level], tokens[level][2:3], rtol=1e-4, atol=1e-5)
    assert drawn[0] != drawn[2]  # another epoch, another view
    assert views(tiny_template, kept, seed=18).drawn(VISITS) != drawn


def test_kept_views_are_those_drawn_anew_until_they_come_again(tiny_template: Any) -> None:
    drawn, tokens = see(views(tiny_template, 0), VISITS)
    kept = views(tiny_template, 2)
    same, features = see(kept, VISITS)
    assert same == drawn
    for level in LEVELS:
        torch.testing.assert_close(features[level], tokens[level], rtol=1e-4, atol=1e-5)
    assert kept.drawn([Visit(3, 2)]) == drawn[:1]


def test_visits_name_sample_and_epoch() -> None:
    order = Order(3, 2, 17, "test")
    visits = [visit for step in range(3) for visit in order.visits(step)]
    assert [visit.epoch for visit in visits] == [0, 0, 0, 1, 1, 1]
    assert [visit.sample for visit in visits] == [sample for step in range(3) for sample in order(step)]
