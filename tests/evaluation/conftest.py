"""The drawn world, once for all tests of the room; tests that write into it take a copy of its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from calm.layout import Layout
from tests.evaluation.calm_world import World, build_world


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(drawn: World, tmp_path: Path) -> World:
    shutil.copytree(drawn.layout.root, tmp_path, dirs_exist_ok=True)
    return World(Layout(tmp_path), drawn.params, drawn.edits, drawn.scores, drawn.comments)
