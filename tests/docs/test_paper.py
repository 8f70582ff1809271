"""docs/paper.md tells the truth: its keys exist, its values are the profile's, the tests it names exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from calm.instructions import SCORE_PROMPT, format_score, messages
from calm.profiles import merged
from calm.training.settings import Optimisation, Strategy

REPOSITORY = Path(__file__).parents[2]
KINDS = {"stated", "figure", "quoted", "chosen"}


class Setting(NamedTuple):
    """One row of the page's tables."""

    name: str
    kind: str
    value: str
    key: str
    test: str


def settings() -> list[Setting]:
    lines = (REPOSITORY / "docs/paper.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [Setting(*row) for row in rows if row[1] not in {"kind", "---"}]


@cache
def paper() -> dict[str, Any]:
    text = merged("paper", REPOSITORY / "params.yaml", REPOSITORY / "profiles")
    found: dict[str, Any] = YAML(typ="safe").load(text)
    return found


def at(key: str) -> Any:
    found: Any = paper()
    for part in key.strip("`").split("."):
        assert part in found, f"docs/paper.md names {key}, but params.yaml has no such key"
        found = found[part]
    return found


def test_every_row_has_a_kind_and_five_cells() -> None:
    assert len(settings()) > 50
    assert {setting.kind for setting in settings()} <= KINDS


@pytest.mark.parametrize("setting", [s for s in settings() if s.key], ids=lambda s: s.name)
def test_every_key_exists(setting: Setting) -> None:
    at(setting.key)


@pytest.mark.parametrize("setting", [s for s in settings() if s.test == "value"], ids=lambda s: s.name)
def test_values_are_the_profiles(setting: Setting) -> None:
    quoted = re.search(r"`([^`]+)`", setting.value)
    if quoted is None:  # explains the value of the same key in the row above
        assert sum(other.key == setting.key and "`" in other.value for other in settings()) == 1
        return
    assert YAML(typ="safe").load(quoted.group(1)) == at(setting.key)


@pytest.mark.parametrize("setting", settings(), ids=lambda s: s.name)
def test_every_test_named_exists(setting: Setting) -> None:
    if setting.test in {"*none yet*", "value"}:
        return
    path, name = setting.test.strip("`").split("::")
    tree = ast.parse((REPOSITORY / "tests" / path).read_text(encoding="utf-8"))
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], setting.test


def test_the_score_is_asked_and_written_as_in_the_figure() -> None:
    assert SCORE_PROMPT == "Can you give me the aesthetic score?"
    assert messages(SCORE_PROMPT) == [{"role": "user", "content": f"<image>\n{SCORE_PROMPT}"}]
    assert format_score(6.53) == "6.5."


def test_every_task_of_the_paper_is_evaluated() -> None:
    assert {"scoring", "commenting", "personalised", "suggesting"} <= set(paper()["evaluation"]["tasks"])


def test_without_weight_decay_the_loop_is_adam(tmp_path: Path) -> None:
    from calm.training.loop.engine import Run, train
    from calm.training.loop.order import Part

    class Quadratic:
        def __init__(self) -> None:
            self.parameters = {"x": nn.Parameter(torch.tensor([3.0, -2.0]))}
            self.model = nn.ParameterDict(self.parameters)

        def read(self, step: int, part: Part) -> None:
            pass

        def losses(self, step: int, part: Part, read: None) -> dict[str, torch.Tensor]:
            return {"loss": (self.parameters["x"] ** 2).sum()}

    options = Optimisation(
        steps=20,
        batch_size=1,
        learning_rate=0.1,
        warmup=0.2,
        weight_decay=0.0,
        max_grad_norm=1e9,
        checkpoint_every=100,
    )
    objective = Quadratic()
    curve = train(objective, Run("quadratic", options, Strategy(kind="single"), 1, tmp_path, []))

    twin = nn.Parameter(torch.tensor([3.0, -2.0]))
    adam = torch.optim.Adam([twin], betas=(0.9, 0.999))
    for rate in curve["learning_rate"]:
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        (twin**2).sum().backward()
        adam.step()
    torch.testing.assert_close(objective.parameters["x"], twin)
    assert (twin.abs() < torch.tensor([3.0, 2.0])).all()
