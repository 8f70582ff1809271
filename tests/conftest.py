"""The tiny world: parts with random weights and drawn data, built and trained once for all tests."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]


def copied(root: Path, *names: str) -> Path:
    """These files and folders of the checkout, without what tools left in them."""
    root.mkdir(exist_ok=True)
    outside = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
    for name in names:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, root / name, ignore=outside)
        else:
            shutil.copy(REPOSITORY / name, root)
    return root


SLOW = (
    "distributed",
    "pipeline",
    "page",
    "docs",
    "writing",
    "plan",
    "test_benchmarks.py",
    "test_transformers.py",
)  # begin first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by room; a file's tests stay in one process."""
    items.sort(key=lambda item: not set(SLOW) & set(item.path.parts))


@dataclass(frozen=True)
class TinyWorld:
    """Tiny parts, drawn data, and a checkout's folders."""

    parts: Any
    layout: Any

    def params(self, **changes: Any) -> Any:
        """As `tests.tiny.params`."""
        from tests import tiny

        return tiny.params(self.parts, **changes)


@pytest.fixture(scope="session")
def tiny_template(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """Built once; tests that write take `tiny_world`."""
    from tests import tiny

    root = tmp_path_factory.mktemp("tiny")
    parts = tiny.save_parts(root / "parts")
    return TinyWorld(parts, tiny.build_data(root / "checkout", tiny.params(parts)))


@pytest.fixture(scope="session")
def trained_template(tiny_template: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """All four training stages, by one thread; tests that write take `trained_world`."""
    import torch

    from calm.training import finetune, pretrain

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    world = _copy(tiny_template, tmp_path_factory.mktemp("trained") / "checkout")
    for run in pretrain.RUNS:
        pretrain.pretrain(run, world.params(), world.layout)
    for run in finetune.RUNS:
        finetune.finetune(run, world.params(), world.layout)
    torch.set_num_threads(threads)
    return world


@pytest.fixture
def trained_world(trained_template: TinyWorld, tmp_path: Path) -> TinyWorld:
    """A trained checkout of its own."""
    return _copy(trained_template, tmp_path / "checkout")


@pytest.fixture
def tiny_world(tiny_template: TinyWorld, tmp_path: Path) -> TinyWorld:
    """A checkout of its own."""
    return _copy(tiny_template, tmp_path / "checkout")


def _copy(world: TinyWorld, root: Path) -> TinyWorld:
    from calm.layout import Layout

    shutil.copytree(world.layout.root, root)
    return TinyWorld(world.parts, Layout(root))
