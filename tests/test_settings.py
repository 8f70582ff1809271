"""What datasets and tasks define themselves is checked with the rest of params.yaml, before anything runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from calm.cli.stages import start
from calm.params import Params, load_params
from calm.profiles import check_open_sections, merged, save, use
from calm.settings import ParamsError
from tests.evaluation.calm_world import with_settings

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def params() -> Params:
    return load_params(REPOSITORY / "params.yaml")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: params.yaml with one setting of the last task mistyped."""
    text = (REPOSITORY / "params.yaml").read_text()
    assert text.count("draws: 5") == 1
    (tmp_path / "params.yaml").write_text(text.replace("draws: 5", "drawz: 5"))
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/demo.yaml").write_text("# demo\nprofile: demo\nseed: 3\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_dataset(params: Params, name: str, **settings: Any) -> Params:
    datasets = params.data.datasets | {name: params.data.datasets.get(name, {}) | settings}
    return params.model_copy(update={"data": params.data.model_copy(update={"datasets": datasets})})


def test_every_wrong_key_of_every_dataset_and_task_is_told_at_once(params: Params) -> None:
    check_open_sections(params)
    wrong = with_dataset(with_settings(params, "commenting", max_item=9), "photos", view=3, raters=-1)
    wrong = with_settings(wrong, "personalised", draws="five")
    with pytest.raises(ParamsError) as error:
        check_open_sections(wrong)
    for key in (
        "data.datasets.photos.view",
        "data.datasets.photos.raters",
        "evaluation.tasks.commenting.max_item",
        "evaluation.tasks.personalised.draws",
    ):
        assert f"{key}: " in str(error.value)


def test_what_has_no_file_yet_is_left_to_its_stage(params: Params) -> None:
    check_open_sections(with_dataset(with_settings(params, "humming", volume=11), "not_written_yet", anything=1))


@pytest.mark.parametrize("stage", ["fetch", "pretrain", "finetune"])
def test_no_stage_starts_with_a_mistyped_setting_of_a_later_one(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(ParamsError, match=r"evaluation\.tasks\.personalised\.drawz: unknown key"):
        start(stage)


def test_no_profile_is_used_or_saved_with_a_mistyped_setting(checkout: Path) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*.yaml")}
    for act in (merged, use, save):
        with pytest.raises(ParamsError, match=r"evaluation\.tasks\.personalised\.drawz: unknown key"):
            act("demo")
    assert {path: path.read_bytes() for path in checkout.rglob("*.yaml")} == before
