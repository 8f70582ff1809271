"""Edits are deterministic, independent of the batch, and stored as JSON without loss."""

from itertools import combinations

import numpy as np
import pytest
import torch

from calm.attributes.edits import Edit, EditError, absent, apply_edits, draw_edits, edits_from_json, edits_to_json
from calm.attributes.taxonomy import TaxonomyError, taxonomy
from calm.seeds import stream

SIZES = [(64, 97), (97, 64), (224, 224), (426, 640)]
EVERY = [Edit(one.name, state.name, 0.6, 11) for one in taxonomy().attributes for state in one.states]


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    """Smooth random colour with some texture, (count, 3, height, width) in 0..1."""
    rng = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, 3, 6, 8, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (smooth + 0.1 * torch.rand(count, 3, height, width, generator=rng)).clamp(0, 1)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_edit_keeps_shape_and_range_at_odd_sizes(height: int, width: int) -> None:
    images = pictures(1, height, width)
    for edit in EVERY:
        for severity in (0.0, 1.0):
            edited = apply_edits(images, [[Edit(edit.attribute, edit.state, severity, 3)]])
            assert edited.shape == images.shape and edited.dtype == images.dtype
            assert 0 <= edited.min() and edited.max() <= 1 and not torch.equal(edited, images), edit


@pytest.mark.parametrize("edit", EVERY, ids=lambda edit: edit.state)
@pytest.mark.parametrize(("height", "width"), [(64, 97), (224, 224)])
def test_result_does_not_depend_on_the_batch(edit: Edit, height: int, width: int) -> None:
    images = pictures(7, height, width)
    edits = [[Edit(edit.attribute, edit.state, index / 6, index)] for index in range(7)]
    together = apply_edits(images, edits)
    for rows in ([3], [6, 0], [5, 1, 3]):
        apart = apply_edits(images[rows], [edits[row] for row in rows])
        assert torch.equal(apart, together[rows])


def test_result_does_not_depend_on_the_number_of_threads() -> None:
    images = pictures(len(EVERY), 224, 224)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(apply_edits(images, [[edit] for edit in EVERY]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_mixed_batches_equal_one_image_at_a_time_and_repeat() -> None:
    images = pictures(12, 96, 80)
    edits = [draw_edits(stream(3, "mixed", index), index % 4, taxonomy()) for index in range(12)]
    together = apply_edits(images, edits)
    singly = torch.cat([apply_edits(images[row : row + 1], [edits[row]]) for row in range(12)])
    assert torch.equal(together, singly)
    assert torch.equal(together, apply_edits(images, edits))


def test_the_order_in_which_edits_are_given_does_not_matter() -> None:
    images = pictures(1, 96, 96)
    edits = [
        Edit("noise", "noisy", 0.5, 1),
        Edit("tilt", "clockwise", 0.5, 2),
        Edit("brightness", "underexposed", 0.5, 3),
    ]
    assert torch.equal(apply_edits(images, [edits]), apply_edits(images, [edits[::-1]]))


def test_no_edits_leave_every_bit_and_the_input_is_never_written_to() -> None:
    images = pictures(2, 80, 80)
    before = images.clone()
    edited = apply_edits(images, [[], [Edit("brightness", "overexposed", 1.0, 0)]])
    assert torch.equal(edited[0], images[0]) and not torch.equal(edited[1], images[1])
    assert torch.equal(images, before)


def test_other_seeds_give_other_grains_and_patches() -> None:
    images = pictures(1, 96, 96)
    for attribute, state in (("noise", "noisy"), ("clutter", "cluttered"), ("framing", "tight")):
        one, other = (apply_edits(images, [[Edit(attribute, state, 0.5, seed)]]) for seed in (1, 2))
        assert not torch.equal(one, other)


def test_drawn_edits_are_distinct_and_do_not_contradict() -> None:
    for index in range(300):
        edits = draw_edits(stream(1, "draw", index), 1 + index % 4, taxonomy())
        assert len(edits) == 1 + index % 4
        assert len({edit.attribute for edit in edits}) == len(edits)
        states = [taxonomy().attribute(edit.attribute).state(edit.state) for edit in edits]
        assert all(not one.touches & other.touches for one, other in combinations(states, 2))


def test_contradictions_that_people_would_notice_share_a_quantity() -> None:
    pairs = [
        ("brightness.underexposed", "key.high_key"),
        ("saturation.oversaturated", "palette.monochrome"),
        ("colour_cast.green", "temperature.warm"),
        ("sharpness.blurred", "depth_of_field.soft_background"),
        ("vignette.dark_corners", "framing.letterboxed"),
        ("orientation.sideways", "tilt.clockwise"),
    ]
    for pair in pairs:
        one, other = (taxonomy().attribute(name.split(".")[0]).state(name.split(".")[1]) for name in pair)
        assert one.touches & other.touches, pair


def test_draws_reach_every_state_and_respect_absent_colour() -> None:
    rng = stream(2, "reach")
    drawn = {(edit.attribute, edit.state) for _ in range(800) for edit in draw_edits(rng, 1, taxonomy())}
    assert drawn == {(edit.attribute, edit.state) for edit in EVERY}
    (grey,) = absent(torch.full((1, 3, 64, 64), 0.4))
    for _ in range(200):
        (edit,) = draw_edits(rng, 1, taxonomy(), avoid=grey)
        assert edit.attribute not in ("saturation", "palette")


def test_more_edits_than_go_together_are_refused() -> None:
    with pytest.raises(EditError, match="cannot draw 30 edits"):
        draw_edits(stream(1, "many"), 30, taxonomy())


def test_json_round_trip() -> None:
    for index in range(50):
        edits = draw_edits(stream(4, "json", index), index % 4, taxonomy())
        assert edits_from_json(edits_to_json(edits)) == edits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"attribute": "moon", "state": "full", "severity": 1, "seed": 1}]', "unknown attribute 'moon'"),
        ('[{"attribute": "tilt", "state": "full", "severity": 1, "seed": 1}]', "'tilt' has no state 'full'"),
        ('[{"attribute": "tilt", "state": "unchanged", "severity": 1, "seed": 1}]', "is not an edit"),
        (
            '[{"attribute": "tilt", "state": "clockwise", "severity": 2, "seed": 1}]',
            "0.severity: .*less than or equal to 1",
        ),
        ('[{"attribute": "tilt", "state": "clockwise", "severity": NaN, "seed": 1}]', "0.severity: .*or equal to 1"),
        ('[{"attribute": "tilt", "state": "clockwise", "severity": 1, "seed": -1}]', "0.seed: .*or equal to 0"),
        ('[{"attribute": "tilt", "state": "clockwise", "severity": 1, "seed": "1"}]', "0.seed: .*valid integer"),
        ('[{"attribute": "tilt"}]', "0.state: Field required"),
        ("{}", "valid array"),
        ("[", "Invalid JSON"),
    ],
)
def test_json_errors_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises((EditError, TaxonomyError), match=message):
        edits_from_json(text)


def test_unusable_images_are_refused() -> None:
    edit = [Edit("noise", "noisy", 0.5, 1)]
    with pytest.raises(EditError, match=r"\(B, 3, H, W\)"):
        apply_edits(torch.zeros(3, 64, 64), [edit])
    with pytest.raises(EditError, match="floats"):
        apply_edits(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [edit])
    with pytest.raises(EditError, match="at least 64"):
        apply_edits(torch.zeros(1, 3, 63, 64), [edit])
    with pytest.raises(EditError, match="2 images but edits for 1"):
        apply_edits(torch.zeros(2, 3, 64, 64), [edit])
    with pytest.raises(EditError, match="edited twice"):
        apply_edits(torch.zeros(1, 3, 64, 64), [edit + edit])


def test_severity_is_uniform() -> None:
    rng = stream(9, "severity")
    severities = [edit.severity for _ in range(500) for edit in draw_edits(rng, 1, taxonomy())]
    assert np.allclose(np.quantile(severities, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.07)
