"""Datasets, one file each. A dataset is found by its file's name; nothing else has to be touched to add one."""

from __future__ import annotations

import importlib
import pkgutil

from calm.data.sources.base import Source, SourceError
from calm.layout import Layout
from calm.params import Params, ParamsError

__all__ = ["Source", "SourceError", "fetch", "names", "source"]


def names() -> list[str]:
    """Every dataset that calm can read."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def source(name: str, params: Params) -> Source:
    """The source of one dataset with its settings from params.data.datasets, checked.

    Raises:
        ParamsError: params do not name it, calm has no file for it, or its settings are wrong.
    """
    if name not in params.data.datasets:
        raise ParamsError(f"data.datasets has no entry '{name}'; it has: {', '.join(params.data.datasets)}")
    if name not in names():
        raise ParamsError(f"data.datasets.{name}: unknown dataset; calm knows: {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    made = module.SOURCE(name, params.data.datasets[name], params.seed)
    assert isinstance(made, Source), f"{module.__name__}.SOURCE is not a Source"
    return made


def fetch(dataset: str, params: Params, layout: Layout) -> None:
    """Stage fetch@DATASET: make the dataset's files available and write their manifest."""
    source(dataset, params).fetch(layout.raw(dataset))
