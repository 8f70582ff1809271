"""What stands of what is recognised: rare states have to be sure, turns to be seen in turned copies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from calm.assistant.answers import suggested
from calm.assistant.recognition import SURE, Checked, Flaw, turned
from calm.attributes.taxonomy import taxonomy
from calm.model.heads import Calibration
from calm.training.pretrain import state_table
from tests import tiny

TABLE = state_table(taxonomy())
ROW = {(attribute, state): row for row, (_, attribute, state) in enumerate(TABLE)}


def recognised(*states: tuple[str, str, float]) -> torch.Tensor:
    """Similarities (S,) by which the states have these probabilities, all others next to none."""
    found = torch.full((len(TABLE),), -20.0)
    for row, (_, _, state) in enumerate(TABLE):
        found[row] = 0.0 if state == "unchanged" else -20.0
    for attribute, state, probability in states:
        found[ROW[attribute, state]] = float(np.log(probability / (1 - probability)))
    return found


def checked(copies: list[torch.Tensor]) -> tuple[Checked, list[int]]:
    """A model that recognises in its n-th look at copies `copies[n]` of all of them, or row by row; and what it saw."""
    config = SimpleNamespace(
        attribute_states=TABLE,
        recognition=Calibration((0.0,) * len(TABLE)).to_config(),
        unpraised=(),
        told_states=3,
        told_probability=0.5,
        told_further=0.3,
    )

    def tell(_: torch.Tensor, told: list[list[int]]) -> torch.Tensor:
        return torch.tensor(told)

    class Shown:
        similarities = staticmethod(torch.clone)
        __call__ = staticmethod(tell)

    seen: list[int] = []

    def look(pictures: Any) -> torch.Tensor:
        seen.append(len(pictures))
        return copies[len(seen) - 1].expand(len(pictures), -1)

    return Checked(cast(Any, SimpleNamespace(config=config, mfam=Shown())), cast(Any, look)), seen


TILTED, LEVEL = recognised(("tilt", "clockwise", 0.95)), recognised()
TILT = taxonomy().attribute("tilt").state("clockwise")
COPIES = len(TILT.turned_back) + 1
LEVEL_ONCE_TURNED_BACK = torch.stack([LEVEL, LEVEL, *[TILTED] * (COPIES - 2)])
TILES = torch.stack([TILTED] * COPIES)
LEVEL_IN_ANY_COPY = torch.stack([LEVEL] * COPIES)


@pytest.mark.parametrize(
    ("copies", "stands"), [(LEVEL_ONCE_TURNED_BACK, True), (TILES, False), (LEVEL_IN_ANY_COPY, False)]
)
def test_a_tilt_stands_if_it_goes_once_turned_back_and_stays_once_turned_on(copies: torch.Tensor, stands: bool) -> None:
    assert len(TILT.turned_on) == 1
    model, seen = checked([copies])
    settled = model.settled(cast(Any, torch.stack([LEVEL, TILTED])), tiny.pictures(2))
    assert seen == [COPIES]  # copies of the second alone
    assert settled.told == [[], [Flaw("tilt", "clockwise", pytest.approx(0.95), turn=-4.0)] if stands else []]
    assert len(settled.praised[0]) == 3 and settled.praised[1] == ([] if stands else settled.praised[0])
    assert settled.sound == pytest.approx([1.0, 0.05 if stands else 1.0], abs=1e-6)


@pytest.mark.parametrize(("probability", "stands"), [(SURE - 0.05, False), (SURE + 0.05, True)])
def test_a_rare_state_stands_if_it_is_sure(probability: float, stands: bool) -> None:
    assert taxonomy().attribute("aspect").state("stretched_tall").rare
    model, seen = checked([])
    found = recognised(("aspect", "stretched_tall", probability), ("noise", "noisy", 0.6))
    settled = model.settled(cast(Any, found.unsqueeze(0)), tiny.pictures(1))
    noisy = Flaw("noise", "noisy", pytest.approx(0.6))
    stretched = Flaw("aspect", "stretched_tall", pytest.approx(probability))
    assert settled.told == [[stretched, noisy] if stands else [noisy]] and seen == []


def test_what_photographers_choose_is_neither_told_nor_is_its_absence_praised() -> None:
    assert taxonomy().attribute("palette").state("monochrome").chosen
    found = torch.stack([recognised(("palette", "monochrome", 0.95)), recognised()])
    settled = checked([])[0].settled(cast(Any, found), tiny.pictures(2))
    assert settled.told == [[], []] and settled.sound == pytest.approx([1.0, 1.0], abs=1e-6)
    assert "palette" not in settled.praised[0] and len(settled.praised[0]) == 3
    noisy = recognised(("palette", "monochrome", 0.95), ("noise", "noisy", 0.6)).unsqueeze(0)
    (told,) = checked([])[0].settled(cast(Any, noisy), tiny.pictures(1)).told
    assert [flaw.state for flaw in told] == ["noisy"]


def test_the_language_model_is_told_of_what_stands_alone() -> None:
    picture = recognised(("tilt", "clockwise", 0.95), ("noise", "noisy", 0.6))
    told = {}
    for name, copies in {"tilted": LEVEL_ONCE_TURNED_BACK, "tiles": TILES}.items():
        model, tokens = checked([copies])[0], cast(Any, picture.unsqueeze(0))
        rows = model.telling(tokens, model.settled(tokens, tiny.pictures(1)))[0].tolist()
        told[name] = [TABLE[row][2] for row in rows if row < len(TABLE)]
    assert told == {"tilted": ["clockwise", "noisy"], "tiles": ["noisy"]}


def test_a_picture_on_its_side_is_turned_to_the_side_on_which_it_stands() -> None:
    aside = recognised(("orientation", "sideways", 0.8))
    for copies, degrees in ((torch.stack([LEVEL, aside]), -90.0), (torch.stack([aside, LEVEL]), 90.0)):
        settled = checked([copies])[0].settled(cast(Any, aside.unsqueeze(0)), tiny.pictures(1))
        assert settled.told == [[Flaw("orientation", "sideways", pytest.approx(0.8), turn=degrees)]]
    assert suggested("orientation", "sideways", -90.0) == ["I would turn the picture by 90 degrees to the left."]
    assert suggested("orientation", "sideways", 90.0) == ["I would turn the picture by 90 degrees to the right."]
    assert suggested("orientation", "upside_down", 180.0) == ["I would turn the picture by 180 degrees."]
    assert suggested("tilt", "clockwise", -8.0) == ["I would turn the picture by some 8 degrees to the left."]
    assert suggested("noise", "noisy") == [
        f"I would {one}." for one in taxonomy().attribute("noise").states[0].remedies
    ]


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (50, 50)])
@pytest.mark.parametrize("degrees", [-16.0, 8.0, 90.0, -90.0, 180.0])
def test_a_turned_picture_has_no_empty_corner(size: tuple[int, int], degrees: float) -> None:
    white = turned(Image.new("RGB", size, "white"), degrees)
    assert np.asarray(white).min() == 255
    wanted = size[::-1] if abs(degrees) == 90 else size
    assert white.width / white.height == pytest.approx(wanted[0] / wanted[1], rel=0.06)
    mark = Image.new("RGB", size)
    mark.paste("red", (size[0] // 2 - 3, 8, size[0] // 2 + 3, 14))  # over the middle
    found = np.asarray(turned(mark, degrees))[..., 0]
    if abs(degrees) == 90:
        assert (found.argmax(1).max() > found.shape[1] / 2) == (degrees > 0)  # clockwise: to the right
    elif abs(degrees) < 90:
        assert (np.average(np.arange(found.shape[1]), weights=found.sum(0)) > (found.shape[1] - 1) / 2) == (degrees > 0)


def test_a_state_that_is_turned_on_has_to_be_turned_back_too() -> None:
    state = TILT.model_dump() | {"turned_back": ()}
    with pytest.raises(ValueError, match="turned_on needs turned_back"):
        type(TILT).model_validate(state)
