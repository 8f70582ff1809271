"""Profiles merge into params.yaml without touching what they do not name, and back."""

from __future__ import annotations

import shutil
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from calm.params import Params, load_params
from calm.profiles import WHOLE, chain, merged, names, overlay, places, save, summary, use
from calm.settings import ParamsError

REPOSITORY = Path(__file__).parents[1]
PROFILES = REPOSITORY / "profiles"
ALL = names(PROFILES)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder with params.yaml and profiles/."""
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    shutil.copytree(PROFILES, tmp_path / "profiles")
    return tmp_path


def keys(profile: str) -> set[str]:
    return places((PROFILES / f"{profile}.yaml").read_text()).keys() - {"extends"}


def test_the_committed_params_are_the_demo_profile() -> None:
    committed = (REPOSITORY / "params.yaml").read_text()
    assert merged("demo", REPOSITORY / "params.yaml", PROFILES) == committed, "run: calm profile save demo"


def test_the_profiles_of_the_design_are_there() -> None:
    assert ALL == ["ablations", "demo", "oasis", "oasis-folds", "paper", "paper-e", "release", "release-folds", "small"]
    assert all(summary(name, PROFILES) for name in ALL)


@pytest.mark.parametrize("name", ALL)
def test_there_and_back_again_is_byte_identical(house: Path, name: str) -> None:
    params, folder = house / "params.yaml", house / "profiles"
    before = params.read_bytes()
    changed = use(name, params, folder)
    assert load_params(params).profile == name
    assert (changed > 0) == (name != "demo")
    assert use(name, params, folder) == 0
    use("demo", params, folder)
    assert params.read_bytes() == before


@pytest.mark.parametrize("name", ALL)
def test_demo_names_every_key_that_another_profile_changes(name: str) -> None:
    assert keys(name) <= keys("demo")


def test_the_way_to_a_profile_does_not_matter(house: Path) -> None:
    params, folder = house / "params.yaml", house / "profiles"
    direct = {name: merged(name, params, folder) for name in ALL}
    for earlier, later in zip(ALL, [*ALL[1:], ALL[0]], strict=True):
        use(earlier, params, folder)
        assert merged(later, params, folder) == direct[later]


def test_the_paper_says_what_the_paper_states(house: Path) -> None:
    use("paper", house / "params.yaml", house / "profiles")
    params = load_params(house / "params.yaml")
    assert params.parts.vision == "openai/clip-vit-large-patch14-336"
    assert params.parts.language == "lmsys/vicuna-7b-v1.5"
    assert params.pretrain.attributes.learning_rate == params.pretrain.alignment.learning_rate == 1e-3
    assert (params.finetune.comments.learning_rate, params.finetune.scores.learning_rate) == (2.5e-5, 7e-5)
    assert set(params.data.roles.unlabelled) == {"ava", "aadb", "eva", "icaa", "pccd", "pexels", "spaq", "tad66k"}
    assert set(params.data.roles.generic) == {"llava_pretrain", "sharegpt4v"}
    assert (params.mfam.queries, params.mfam.thematic.content) == (32, [])


def test_every_recipe_of_the_folds_leaves_out_one_part_of_the_first(house: Path) -> None:
    use("oasis-folds", house / "params.yaml", house / "profiles")
    first, *others = load_params(house / "params.yaml").cross_validations["photographs"].recipes.values()
    assert first.self_supervision == "none" and first.reads == ["low", "middle", "high", "thematic"]
    whole = first.model_dump()
    changed = [[key for key, value in other.model_dump().items() if value != whole[key]] for other in others]
    assert {key for keys in changed for key in keys} == set(whole)
    assert all(len(keys) == 1 for keys in changed)


def test_extended_profiles_come_after_what_they_extend() -> None:
    assert chain("demo", PROFILES) == ["demo"]
    assert chain("paper-e", PROFILES) == ["demo", "paper", "paper-e"]


def test_what_no_profile_names_is_kept(house: Path) -> None:
    params = house / "params.yaml"
    params.write_text(params.read_text().replace("seed: 17", "seed: 4 # mine"))
    use("paper", params, house / "profiles")
    assert "seed: 4 # mine\n" in params.read_text()


def test_hand_tuned_values_can_be_saved_into_the_profile(house: Path) -> None:
    params, folder = house / "params.yaml", house / "profiles"
    params.write_text(params.read_text().replace("    r: 8\n", "    r: 12 # tried\n"))
    assert save("demo", params, folder) == 1
    assert "    r: 12 # tried\n" in (folder / "demo.yaml").read_text()
    assert merged("demo", params, folder) == params.read_text()
    with pytest.raises(ParamsError, match="of profile demo"):
        save("oasis", params, folder)


def test_unknown_profiles_keys_circles_and_bad_values_are_errors_that_change_nothing(house: Path) -> None:
    params, folder = house / "params.yaml", house / "profiles"
    before = params.read_bytes()
    (folder / "typo.yaml").write_text("profile: typo\nmfam: {spam: 3}\n")
    (folder / "bad.yaml").write_text("profile: bad\nmfam: {queries: many}\n")
    (folder / "renamed.yaml").write_text("profile: other\n")
    (folder / "round.yaml").write_text("extends: about\nprofile: round\n")
    (folder / "about.yaml").write_text("extends: round\nprofile: about\n")
    for name, message in {
        "nothing": "no profile 'nothing'.*demo",
        "typo": r"typo\.yaml: mfam\.spam is not a key",
        "bad": r"mfam\.queries",
        "renamed": "must be renamed, got other",
        "round": "round extends about extends round",
    }.items():
        with pytest.raises(ParamsError, match=message):
            use(name, params, folder)
    assert params.read_bytes() == before


def test_leaves_keep_their_comments_and_whole_sections_bring_their_own() -> None:
    text = "seed: 1   # keep\n\nablations: # old\n  a:\n    start: x # gone\n# after\nreport:\n  examples: 6\n"
    patch = "seed: 22\nablations:\n  b: {start: y} # new\nreport: {examples: 7}\n"
    assert overlay(text, patch) == (
        "seed: 22   # keep\n\nablations:\n  b: {start: y} # new\n# after\nreport:\n  examples: 7\n"
    )


def test_a_profile_may_name_one_setting_of_a_task(house: Path) -> None:
    params, folder = house / "params.yaml", house / "profiles"
    (folder / "few.yaml").write_text("# few\nprofile: few\nevaluation: {tasks: {commenting: {max_items: 9}}}\n")
    before = load_params(params).evaluation.tasks
    use("few", params, folder)
    tasks = load_params(params).evaluation.tasks
    assert tasks == before | {"commenting": {**before["commenting"], "max_items": 9}}


def test_whole_sections_are_those_with_free_names_or_variants() -> None:
    assert set(whole(Params, "")) <= WHOLE | {"evaluation.tasks"}  # whose settings merge one by one


def whole(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if typing.get_origin(kind) is Annotated:
            kind = typing.get_args(kind)[0]
        if typing.get_origin(kind) in (dict, typing.Union, types.UnionType):
            yield prefix + name
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from whole(kind, f"{prefix}{name}.")
