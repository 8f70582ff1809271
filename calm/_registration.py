"""Teach transformers' Auto classes about CALM without importing transformers: that would cost the command line seconds.

Its Auto classes find everything by name: model type -> class name -> module `transformers.models.TYPE`. So the names
are added to its tables right after the modules that hold them are loaded, and the modules stand in `sys.modules` as
lazy ones that import calm's own when a class is first asked for. transformers' public `register` needs the classes
themselves, hence all of torch; its tables are not documented, so the version is pinned and a test holds this.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

CONFIGURATIONS = {"calm": "CalmConfig", "efficientnet_lite": "EfficientNetLiteConfig"}
CLASSES = {
    "CalmConfig": "calm.model.configuration",
    "EfficientNetLiteConfig": "calm.model.configuration",
    "CalmForConditionalGeneration": "calm.model.modeling",
    "EfficientNetLiteModel": "calm.model.parts.efficientnet_lite",
    "CalmProcessor": "calm.model.processing",
    "CalmImageProcessor": "calm.model.processing",
}


def register() -> None:
    """Register CALM: now where transformers' tables are loaded already, else when they are."""
    for model_type in CONFIGURATIONS:
        sys.modules.setdefault(f"transformers.models.{model_type}", _LazyModule(model_type))
    if not any(isinstance(finder, _TableFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TableFinder())
    for name, fill in TABLES.items():
        if name in sys.modules:
            fill(sys.modules[name])


class _LazyModule(ModuleType):
    """Stands for a module of transformers and imports calm's classes one by one."""

    def __getattr__(self, name: str) -> object:
        if name not in CLASSES:
            raise AttributeError(name)
        return getattr(importlib.import_module(CLASSES[name]), name)


def _fill_configurations(module: ModuleType) -> None:
    module.CONFIG_MAPPING_NAMES.update(CONFIGURATIONS)


def _fill_models(module: ModuleType) -> None:
    module.MODEL_MAPPING_NAMES["efficientnet_lite"] = "EfficientNetLiteModel"
    module.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES["calm"] = "CalmForConditionalGeneration"
    _know(module.MODEL_MAPPING, module.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING)


def _fill_processors(module: ModuleType) -> None:
    module.PROCESSOR_MAPPING_NAMES["calm"] = "CalmProcessor"
    _know(module.PROCESSOR_MAPPING)


def _fill_image_processors(module: ModuleType) -> None:
    module.IMAGE_PROCESSOR_MAPPING_NAMES["calm"] = {"pil": "CalmImageProcessor"}
    _know(module.IMAGE_PROCESSOR_MAPPING)


def _know(*mappings: object) -> None:
    """Mappings copy the names of the configurations when they are made, which may have been before."""
    for mapping in mappings:
        mapping._reverse_config_mapping.update({name: key for key, name in CONFIGURATIONS.items()})  # type: ignore[attr-defined]


TABLES: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _fill_configurations,
    "transformers.models.auto.modeling_auto": _fill_models,
    "transformers.models.auto.processing_auto": _fill_processors,
    "transformers.models.auto.image_processing_auto": _fill_image_processors,
}


class _TableFinder(MetaPathFinder):
    """Finds nothing itself: wraps the loaders of the modules that hold the tables."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in TABLES:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _TableLoader(spec.loader)
                return spec
        return None


class _TableLoader(Loader):
    """Loads a module as its own loader does, then fills its tables."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        TABLES[module.__name__](module)

    def __getattr__(self, name: str) -> object:
        return getattr(self.loader, name)  # resources and source lines, as if it were not wrapped
