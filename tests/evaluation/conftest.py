"""The drawn world, once for all tests of the room; tests that write into it take a copy of its folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from calm.evaluation.statistics import jars
from calm.layout import Layout
from tests.evaluation.calm_world import World, build_world


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(drawn: World, tmp_path: Path) -> World:
    shutil.copytree(drawn.layout.root, tmp_path, dirs_exist_ok=True)
    return World(Layout(tmp_path), drawn.params, drawn.edits, drawn.scores, drawn.comments)


@pytest.fixture(scope="session")
def running_jar() -> Iterator[Any]:
    with jars._started() as jar:
        yield jar


@pytest.fixture
def kept_jar(running_jar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One METEOR for all: it reads its tables for six seconds before it answers."""
    monkeypatch.setattr(jars, "_started", lambda: nullcontext(running_jar))
