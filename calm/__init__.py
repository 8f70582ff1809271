"""calm: aesthetic scores, comments, personal scores and suggestions for photographs, after CALM (AAAI 2025).

Importing calm teaches transformers' Auto classes about CALM without importing transformers: that would cost the command
line seconds. Its Auto classes find everything by name: model type -> class name -> module `transformers.models.TYPE`.
So the names are added to its tables right after the modules that hold them are loaded (wrapt's hooks), and the modules
stand in `sys.modules` as lazy ones that import calm's own when a class is first asked for. transformers' public
`register` needs the classes themselves, hence all of torch; its tables are not documented, so the version is pinned and
a test holds this.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from wrapt import register_post_import_hook

__version__ = "0.1.0"  # the build backend reads it here without importing calm

CONFIGURATIONS = {"calm": "CalmConfig", "efficientnet_lite": "EfficientNetLiteConfig"}
CLASSES = {
    "CalmConfig": "calm.model.configuration",
    "EfficientNetLiteConfig": "calm.model.configuration",
    "CalmForConditionalGeneration": "calm.model.modeling",
    "EfficientNetLiteModel": "calm.model.efficientnet_lite",
    "CalmProcessor": "calm.model.processing",
    "CalmImageProcessor": "calm.model.processing",
}


@contextmanager
def uncollected() -> Iterator[None]:
    """Python's search for circles of garbage waits until the block ends.

    Imports and a vocabulary make a million objects that stay; to search them again and again takes half a second.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def register() -> None:
    """Register CALM: now where transformers' tables are loaded already, else when they are."""
    for model_type in CONFIGURATIONS:
        sys.modules.setdefault(f"transformers.models.{model_type}", _LazyModule(model_type))
    for name, fill in TABLES.items():
        register_post_import_hook(fill, name)


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

register()
