"""params.yaml: what is wrong is named by its key."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from calm.params import load_params, parse_params
from calm.settings import ParamsError

FILE = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture
def raw() -> Any:
    return YAML(typ="safe").load(FILE.read_text())


def put(raw: Any, key: str, value: Any) -> Any:
    """A copy with one key set."""
    changed = deepcopy(raw)
    node = changed
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    node[last] = value
    return changed


def test_the_committed_file_is_valid_and_frozen() -> None:
    params = load_params(FILE)
    with pytest.raises(ValidationError):
        params.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sead", 1),
        ("pretrain.attributes.stepz", 3),
        ("seed", "seventeen"),
        ("seed", -1),
        ("pretrain.attributes.steps", 0),
        ("pretrain.attributes.steps", 2.5),
        ("pretrain.alignment.learning_rate", float("nan")),
        ("finetune.tuning.kind", "magic"),
        ("runtime.dtype", "float8"),
        ("threads.report", True),
        ("strategy.kind", "horovod"),
        ("evaluation.bootstrap.level", 1.0),
        ("data.image.jpeg_quality", 101),
        ("finetune.scores.regression.weight", 0.0),
        ("evaluation.max_items", 96),
        ("report.max_new_tokens", 0),
    ],
)
def test_unknown_mistyped_and_impossible_values_name_their_key(raw: Any, key: str, value: Any) -> None:
    with pytest.raises(ParamsError) as error:
        parse_params(put(raw, key, value), "params.yaml")
    assert key.removesuffix(".kind") in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("finetune.tuning", {"kind": "full", "r": 8}, "finetune.tuning.r"),
        ("attributes.texts.writer", {"provider": "grammar", "model": "gpt-3.5-turbo"}, "attributes.texts.writer.model"),
        ("data.datasets.spare", {}, "data.datasets.spare"),
        ("data.roles.scores", ["photos", "elsewhere"], "data.roles.scores"),
        ("pretrain.attributes.language.samples", 0, "pretrain.attributes.language"),
        ("mfam.cross_attention_every", 99, "mfam.cross_attention_every"),
        ("mfam.heads", 7, "mfam.heads"),
        ("finetune.scores.spread", 0.0, "finetune.scores.decimal_spread"),
    ],
)
def test_keys_without_effect_beside_the_others_are_errors(raw: Any, key: str, value: Any, named: str) -> None:
    with pytest.raises(ParamsError) as error:
        parse_params(put(raw, key, value), "params.yaml")
    assert named in str(error.value)


def test_several_problems_are_told_at_once(raw: Any) -> None:
    with pytest.raises(ParamsError) as error:
        parse_params(put(put(raw, "seed", "x"), "report.examples", 0), "params.yaml")
    assert "seed" in str(error.value)
    assert "report.examples" in str(error.value)


def test_a_missing_broken_or_empty_file_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ParamsError, match="does not exist"):
        load_params(path)
    for text in ("seed: [1", "seed: 1\nseed: 2\n", "", "- 1\n"):
        path.write_text(text)
        with pytest.raises(ParamsError, match=r"params\.yaml"):
            load_params(path)
