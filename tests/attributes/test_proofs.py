"""Each edit moves the quantity it names in the direction it names, on real photographs."""

import pytest
import torch

from calm.attributes.edits import Edit, apply_edits
from calm.attributes.taxonomy import taxonomy
from tests.attributes import measures
from tests.attributes.photos import photos

STATES = [(attribute.name, state.name) for attribute in taxonomy().attributes for state in attribute.states]
ALL_OR_NOTHING = [
    (one.name, state.name) for one in taxonomy().attributes for state in one.states if len(set(state.strength)) == 1
]


def moved(attribute: str, state: str, severity: float, images: torch.Tensor) -> torch.Tensor:
    """How far the state's measure moves in its direction, for each image."""
    found = taxonomy().attribute(attribute).state(state)
    assert found.measure is not None and found.direction is not None
    measure = getattr(measures, found.measure)
    edits = [[Edit(attribute, state, severity, seed)] for seed in range(len(images))]
    return (measure(apply_edits(images, edits)) - measure(images)) * found.direction


@pytest.mark.parametrize(("attribute", "state"), STATES)
def test_edit_moves_its_measure(attribute: str, state: str) -> None:
    images = photos()
    if attribute == "orientation":  # its measures assume light from above, so they speak of such photographs only
        images = images[measures.light_from_above(images) > 0.02]
        assert len(images) >= 3
    mild, strong = (moved(attribute, state, severity, images) for severity in (0.0, 1.0))
    assert (mild > 0).float().mean() >= 0.9, mild
    assert (strong > 0).float().mean() >= 0.9, strong


@pytest.mark.parametrize(("attribute", "state"), [pair for pair in STATES if pair not in ALL_OR_NOTHING])
def test_strong_edits_move_it_further_than_mild_ones(attribute: str, state: str) -> None:
    mild, strong = (moved(attribute, state, severity, photos()) for severity in (0.0, 1.0))
    assert (strong > mild).float().mean() >= 0.8, (mild, strong)
    assert strong.mean() > mild.mean()


@pytest.mark.parametrize(("attribute", "state"), STATES)
def test_mild_edits_are_visible(attribute: str, state: str) -> None:
    images = photos()
    edited = apply_edits(images, [[Edit(attribute, state, 0.0, seed)] for seed in range(len(images))])
    change = (edited - images).abs().mean(dim=(1, 2, 3))
    assert (change > 1 / 255).float().mean() >= 0.9, change


def test_only_orientation_is_all_or_nothing() -> None:
    assert {attribute for attribute, _ in ALL_OR_NOTHING} == {"orientation"}
