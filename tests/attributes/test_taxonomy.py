"""The catalogue is sound, and a new attribute is one new file."""

import sys
from pathlib import Path

import pytest
import torch

from calm.attributes import LEVELS, catalogue
from calm.attributes.edits import Edit, apply_edits
from calm.attributes.grammar import all_guidance, comment
from calm.attributes.taxonomy import STEPS, TaxonomyError, discover, taxonomy
from calm.seeds import stream

HALVED = """
from calm.attributes.taxonomy import Attribute, State

ATTRIBUTE = Attribute(
    name="visibility",
    level="high",
    unchanged=State(name="unchanged", phrases=("all is seen", "all is there", "see all", "it shows"), nouns=("a", "b")),
    states=(
        State(
            name="halved",
            edit=lambda images, strength, seeds: images * images.new_tensor(strength).view(-1, 1, 1, 1),
            strength=(0.5, 0.1),
            harm=0.5,
            phrases=("half is gone", "{very} halved", "it is {too} halved", "a half is missing"),
            nouns=("a missing half", "halving"),
            remedies=("bring it back", "double it", "show all of it"),
            touches=frozenset(("light",)),
            measure="luminance",
            direction=-1,
        ),
    ),
)
"""


def test_levels_names_and_states() -> None:
    known = taxonomy()
    assert all(len(known.at(level)) >= 5 for level in LEVELS)
    names = [attribute.name for attribute in known.attributes]
    assert len(set(names)) == len(names)
    labels = [state.label for attribute in known.attributes for state in attribute.states]
    assert len(set(labels)) == len(labels)
    assert [LEVELS.index(attribute.level) for attribute in known.attributes] == sorted(
        LEVELS.index(attribute.level) for attribute in known.attributes
    )


def test_every_file_is_named_after_its_attribute() -> None:
    files = {path.stem for folder in catalogue.__path__ for path in Path(folder).glob("*.yaml")}
    assert files == {attribute.name for attribute in taxonomy().attributes}


def test_no_two_states_are_the_same_edit() -> None:
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    seen: list[tuple[str, torch.Tensor]] = []
    for attribute in taxonomy().attributes:
        for state in attribute.states:
            edited = apply_edits(images, [[Edit(attribute.name, state.name, 1.0, 1)]])
            for other, result in seen:
                assert (edited - result).abs().mean() > 0.01, (state.name, other)
            seen.append((state.name, edited))


def test_states_are_complete() -> None:
    for attribute in taxonomy().attributes:
        assert attribute.unchanged.remedies == ()
        for state in attribute.states:
            assert state.step in STEPS and 0 < state.harm <= 1 and state.touches
            assert len(set(state.phrases)) >= 4 and len(set(state.remedies)) >= 3


def test_strength_runs_from_mild_to_strong() -> None:
    state = taxonomy().attribute("compression").state("compressed")
    assert [state.strength_at(severity) for severity in (0.0, 0.5, 1.0)] == [15, 9.5, 4]


def test_a_mirrored_photograph_has_the_mirror_images_of_its_states() -> None:
    """Where a state has a mirror image: its edit, mirrored, is that one's edit of the mirrored photograph."""
    known = taxonomy()
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    sided = [(a.name, state.name, state.mirrored) for a in known.attributes for state in a.states if state.mirrored]
    for attribute, name, image in sided:
        own, mirrored = ([[Edit(attribute, one, 0.5, 1)]] for one in (name, image))
        once, other = apply_edits(images, own).flip(-1), apply_edits(images.flip(-1), mirrored)
        torch.testing.assert_close(once, other, rtol=0, atol=1e-4)
    table = [("middle", "tilt", "clockwise"), ("low", "noise", "noisy"), ("middle", "tilt", "counter_clockwise")]
    assert known.mirrored_rows(table) == [2, 1, 0] and known.mirrored_rows([]) == []


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(TaxonomyError, match="unknown attribute 'moon'; attributes are: brightness"):
        taxonomy().attribute("moon")
    with pytest.raises(TaxonomyError, match="'noise' has no state 'loud'; it has: unchanged, noisy"):
        taxonomy().attribute("noise").state("loud")
    with pytest.raises(TaxonomyError, match="unknown level 'top'"):
        taxonomy().at("top")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as a part of the catalogue during the test."""
    monkeypatch.setattr(catalogue, "__path__", [*catalogue.__path__, str(tmp_path)])
    for name in [name for name in sys.modules if name.startswith(f"{catalogue.__name__}.")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_adding_an_attribute_is_adding_one_file(folder: Path) -> None:
    (folder / "visibility.py").write_text(HALVED)
    known = discover(catalogue.__name__, catalogue.__path__)
    assert len(known.attributes) == len(taxonomy().attributes) + 1
    assert "visibility" in [attribute.name for attribute in known.at("high")]
    edit = Edit("visibility", "halved", 0.0, 1)
    assert torch.equal(apply_edits(torch.ones(1, 3, 64, 64), [[edit]], known), torch.full((1, 3, 64, 64), 0.5))
    assert all_guidance("visibility", "halved", known)
    assert "hal" in comment([edit], stream(1, "x"), known=known)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("level:", "height:", "(?s)moon.yaml:.*level: missing.*height: unknown key"),
        ("unchanged:", "unchanging:", "moon.yaml: no key 'unchanged'"),
        ("level: low", "level: top", "moon.yaml:\n  level: .*'middle'.*got 'top'"),
        ("edit: blur", "edit: moon", "moon.yaml:\n.*operations has no function 'moon'"),
        ("harm:", "harms:", "moon.yaml:\n  states.0.harms: unknown key"),
        ("states:", "states: [", "moon.yaml: "),
        ("harm:", "mirrored: oversharpened\n    harm:", "(?s)moon.yaml.*'oversharpened' of 'moon' has to"),
    ],
)
def test_a_faulty_file_of_words_is_named(folder: Path, old: str, new: str, message: str) -> None:
    text = (Path(catalogue.__path__[0]) / "sharpness.yaml").read_text()
    assert old in text
    (folder / "moon.yaml").write_text(text.replace(old, new))
    with pytest.raises(TaxonomyError, match=message):
        discover(catalogue.__name__, catalogue.__path__)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ATTRIBUTE =", "OTHER =", "no attribute 'ATTRIBUTE'"),
        ('level="high"', 'level="top"', "(?s)level.*'top'"),
        ('name="visibility"', 'name="noise"', "two files define the attribute 'noise'"),
        ('"{very} halved", "it is {too} halved", "a half is missing"', "", "at least 4 items"),
        ('"bring it back", ', "", "'halved' has an edit: it needs at least 3 remedies"),
        ("direction=-1", "direction=0", "(?s)direction.*-1 or 1"),
        ('frozenset(("light",))', "frozenset()", "touches"),
        ("harm=0.5", "harm=5", "(?s)harm.*less than or equal to 1"),
        ("harm=0.5", 'harm=0.5, step="moon"', "(?s)step.*'moon'"),
        ('name="halved"', 'name="unchanged"', "a name and an edit of its own"),
    ],
)
def test_a_faulty_file_is_named(folder: Path, old: str, new: str, message: str) -> None:
    assert old in HALVED
    (folder / "visibility.py").write_text(HALVED.replace(old, new))
    with pytest.raises(TaxonomyError, match=message):
        discover(catalogue.__name__, catalogue.__path__)
