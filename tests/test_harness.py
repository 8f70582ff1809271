"""lmms-eval with calm as its model measures what `calm evaluate` does, to the last digit."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calm.assistant import Calm
from calm.evaluation.base import Bench
from calm.evaluation.stage import find_task, settings
from tests import tiny
from tests.evaluation.calm_world import DATASET, World, build_world, with_settings

sys.path.append(str(tiny.REPOSITORY / "harness/lmms_eval"))
sys.path.append(str(Path(sys.prefix) / "harness"))  # `make harness`
pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: make harness")

from calm_lmms_eval import documents
from calm_lmms_eval.figures import suggested
from calm_lmms_eval.model import CalmModel
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

TASKS = tiny.REPOSITORY / "harness/lmms_eval/calm_lmms_eval/tasks"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    drawn = build_world(tmp_path_factory.mktemp("run"))
    params = with_settings(drawn.params, "scoring", ridge_photographs=None)
    return World(drawn.layout, with_settings(params, "commenting", max_items=6))  # METEOR takes a second for each


@pytest.fixture(scope="module")
def folder(trained_template: Any) -> Path:
    found: Path = trained_template.layout.finetuned("scores")
    return found


@pytest.fixture
def measured(world: World, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What lmms-eval says of a task, about the drawn dataset."""
    monkeypatch.chdir(world.layout.root)
    monkeypatch.setattr(documents, "load_params", lambda _: world.params)
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))

    def measure(task: str, readout: str, dataset: str = DATASET) -> dict[str, float]:
        shutil.copytree(TASKS, tmp_path / "tasks", dirs_exist_ok=True)
        for path in (tmp_path / "tasks/sets").iterdir():
            path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": dataset}))
        tasks = TaskManager("ERROR", str(tmp_path / "tasks"), include_defaults=False, model_name="calm")
        model = CalmModel(str(folder), readout=readout, device="cpu")
        results = simple_evaluate(model, tasks=[task], task_manager=tasks, bootstrap_iters=0, log_samples=False)
        found = {name.removesuffix(",none"): value for name, value in results["results"][task].items()}
        return {name: value for name, value in found.items() if name != "alias" and "_stderr" not in name}

    yield measure
    documents._bench.cache_clear()


@pytest.fixture
def expected(world: World, folder: Path) -> Any:
    """What `calm evaluate` writes of the same model."""

    def evaluate(task: str) -> dict[str, Any]:
        calm = Calm.from_pretrained(folder, device="cpu")
        bench: Bench[Any] = Bench(task, world.params, world.layout, calm, settings(task, world.params))
        return find_task(task).run(bench).metrics

    return evaluate


def test_every_task_is_known_and_names_what_exists() -> None:
    tasks = TaskManager("ERROR", str(TASKS), include_defaults=False)
    assert tasks.all_subtasks == sorted(path.stem for path in TASKS.glob("*.yaml"))
    for task in tasks.all_subtasks:
        found = tasks._get_config(task)
        assert found["task"] == task
        assert Path(found["dataset_kwargs"]["data_files"]["test"]).is_file()


@pytest.mark.parametrize("readout", ["text", "expectation", "regression"])
def test_scores_measure_the_same(measured: Any, expected: Any, readout: str) -> None:
    found = measured("calm_ava", readout)
    ours = expected("scoring")
    assert found.pop("unparseable") == (ours["text"]["unparseable"] if readout == "text" else 0)
    same({name: ours[readout][name]["value"] for name in found}, found)


def test_comments_measure_the_same(measured: Any, expected: Any) -> None:
    found = measured("calm_ava_captions", "text")
    ours = expected("commenting")
    assert set(found) == {"cider", "meteor", "rouge_l", "bleu_1", "bleu_2", "bleu_3", "bleu_4"}
    same({name: ours[name]["value"] for name in found}, found)


def test_suggestions_measure_the_same(measured: Any, expected: Any) -> None:
    found = measured("calm_suggesting", "text")
    ours = expected("suggesting")["decided"]["suggested"]
    ours |= ours["state"]
    same({name: ours[name]["value"] for name in found}, found)


def test_personal_scores_in_context_measure_the_same(measured: Any, expected: Any) -> None:
    found = measured("calm_flickr_aes", "regression")
    ours = expected("personalised")["at_10"]["in_context"]
    same({name: ours[name]["value"] for name in found}, found)


def test_another_model_s_words_count_by_the_states_that_they_name() -> None:
    assert suggested("I would apply careful denoising to remove the grain.") == ["noise: noisy"]
    assert suggested("Leave it as it is.") == suggested("") == []


def test_what_is_not_there_is_one_line(measured: Any) -> None:
    with pytest.raises(SystemExit, match=r"no test photograph of 'moon' in this run, which has: drawn"):
        measured("calm_ava", "text", "moon")


def same(ours: dict[str, float | None], found: dict[str, float]) -> None:
    """As `calm evaluate` stores them, with six digits."""
    assert found
    rounded = {name: None if value != value else round(value, 6) for name, value in found.items()}
    assert rounded == ours
