"""Samples of true layouts, in the folder that CALM_FORMATS names; they are no part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def formats() -> Path:
    """The folder of samples, one folder per dataset."""
    root = Path(os.environ.get("CALM_FORMATS", ""))
    if not os.environ.get("CALM_FORMATS") or not root.is_dir():
        pytest.skip("CALM_FORMATS names no folder with samples of dataset layouts")
    return root
