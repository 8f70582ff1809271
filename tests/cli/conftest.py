"""Photographs of scenes, and a model that scores them by their width: what a photographer does with many."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from calm.cli import app
from tests.test_cli import FakeCalm


class ByWidth(FakeCalm):
    """400 pixels score 4.00, and better than 40 of 100."""

    def score(
        self, images: Sequence[Image.Image], batch_size: int, public: str | None, *, written: bool
    ) -> list[SimpleNamespace]:
        values = [image.width / 100 for image in images]
        return [
            SimpleNamespace(text=None, expectation=5.0, regression=value, spread=1.0, percentile=10 * value)
            for value in values
        ]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["score", *arguments])


def rows(*arguments: str) -> list[dict[str, Any]]:
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def scene(seed: int, width: int, shift: float = 0.0) -> Image.Image:
    """Coarse patches of colour, other ones for each seed; `shift` of the width to the right."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8), "RGB")
    whole = patches.resize((1200, 800), Image.Resampling.BICUBIC)
    return whole.crop((int(1200 * shift), 0, int(1200 * (0.9 + shift)), 800)).resize((width, width * 2 // 3))


@pytest.fixture
def holiday(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Saves photographs of scenes into the folder `holiday` of the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    import_module("calm.assistant.inputs")
    monkeypatch.setitem(sys.modules, "calm.assistant", SimpleNamespace(Calm=ByWidth))  # type: ignore[arg-type]
    Path("holiday").mkdir()

    def save(name: str, seed: int, width: int, shift: float = 0.0, **options: Any) -> Path:
        scene(seed, width, shift).save(Path("holiday", name), **options)
        return Path("holiday", name)

    return save
