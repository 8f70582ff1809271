"""Datasets, a folder each. A dataset is found by its folder's name; nothing else has to be touched to add one."""

from __future__ import annotations

import importlib
import pkgutil

from calm.data import SourceError
from calm.data.reading.base import Source
from calm.layout import Layout
from calm.params import Params
from calm.settings import ParamsError

__all__ = ["Source", "SourceError", "fetch", "names", "source", "source_type"]


def names() -> list[str]:
    """Every dataset that calm can read."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def source_type(name: str) -> type[Source]:
    """The class of a dataset that is one of `names`: its card, its published counts, how it is got."""
    module = importlib.import_module(f"{__name__}.{name}")
    assert issubclass(module.SOURCE, Source), f"{module.__name__}.SOURCE is not a Source"
    found: type[Source] = module.SOURCE
    return found


def source(name: str, params: Params, layout: Layout | None = None) -> Source:
    """The source of one dataset with its settings from params.data.datasets, checked; downloads lie below `layout`.

    Raises:
        ParamsError: params do not name it, calm has no folder for it, or its settings are wrong.
    """
    if name not in params.data.datasets:
        raise ParamsError(f"data.datasets has no entry '{name}'; it has: {', '.join(params.data.datasets)}")
    if name not in names():
        raise ParamsError(f"data.datasets.{name}: unknown dataset; calm knows: {', '.join(names())}")
    made = source_type(name)(name, params.data.datasets[name], params.seed, layout)
    made.agree(params)
    return made


def fetch(dataset: str, params: Params, layout: Layout) -> None:
    """Stage fetch@DATASET: make the dataset's files available and write their manifest."""
    source(dataset, params, layout).fetch(layout.raw(dataset))
