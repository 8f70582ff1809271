"""One thread: tests compare bits, and run side by side."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


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


@pytest.fixture
def tiny_world(tiny_template: TinyWorld, tmp_path: Path) -> TinyWorld:
    """A checkout of its own."""
    from calm.layout import Layout

    root = tmp_path / "checkout"
    shutil.copytree(tiny_template.layout.root, root)
    return TinyWorld(tiny_template.parts, Layout(root))
