"""A checkpoint that leaves the house: transformers reads it, with the code beside it, where calm is not installed."""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path

from calm.io import atomic_dir
from calm.model.build import load_complete
from calm.model.released import CARD, FOLDER, is_released, load_released
from calm.model.settings import Runtime

# One file that transformers asks for every class: of several it would make a package each, with classes of their own.
_ENTRY = """\
\"\"\"CALM's classes, and its encoder under a name that transformers does not know.\"\"\"

from transformers import AutoConfig, AutoImageProcessor, AutoModel

from .configuration import CalmConfig, EfficientNetLiteConfig
from .efficientnet_lite import EfficientNetLiteModel
from .modeling import CalmForConditionalGeneration
from .processing import CalmImageProcessor, CalmProcessor

AutoConfig.register("efficientnet_lite", EfficientNetLiteConfig, exist_ok=True)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)
AutoImageProcessor.register(CalmConfig, slow_image_processor_class=CalmImageProcessor, exist_ok=True)
"""
_MODULES = ("calm.model.modeling", "calm.model.processing", "calm.model.parts.efficientnet_lite")
_CLASSES = {
    "config.json": {
        "AutoConfig": "entry.CalmConfig",
        "AutoModelForImageTextToText": "entry.CalmForConditionalGeneration",
    },
    "processor_config.json": {"AutoProcessor": "entry.CalmProcessor"},
}
_UNTOLD = "# A model trained by calm\n\nData, terms and figures: results/report.md of the run that trained it.\n"


def export(source: Path | None, folder: Path) -> None:
    """Write a whole model (None: the one that comes with calm), processor, code and card into a new folder.

    `AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)` reads it in any environment with torch
    and transformers of calm's version.

    Raises:
        FileExistsError: the folder is there already.
        FileNotFoundError: there is no model in `source`.
    """
    source = source or FOLDER
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: name a folder that is not, or remove it")
    exact = Runtime(device="cpu", dtype="float32")
    assembly = load_released(source, exact) if is_released(source) else load_complete(source, exact)
    card = source / CARD
    with atomic_dir(folder) as part:
        assembly.model.save_pretrained(part)
        assembly.processor.save_pretrained(part)
        for name, classes in _CLASSES.items():
            settings = json.loads((part / name).read_text(encoding="utf-8"))
            (part / name).write_text(json.dumps(settings | {"auto_map": classes}, indent=2) + "\n", encoding="utf-8")
        (part / "entry.py").write_text(_ENTRY, encoding="utf-8")
        for module in sorted(_imported(_MODULES)):
            (part / f"{_flat(module)}.py").write_text(_freed(module), encoding="utf-8")
        text = card.read_text(encoding="utf-8") if card.is_file() else _UNTOLD
        (part / "README.md").write_text(text, encoding="utf-8")


def _source(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return Path(spec.origin).read_text(encoding="utf-8")


def _own_imports(source: str) -> list[ast.ImportFrom]:
    """Statements that import from calm, in the order of their lines."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return sorted((node for node in found if (node.module or "").startswith("calm.")), key=lambda node: node.lineno)


def _imported(modules: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    left = list(modules)
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += [str(node.module) for node in _own_imports(_source(module))]
    return found


def _flat(module: str) -> str:
    return module.rpartition(".")[2]


def _freed(module: str) -> str:
    """A module's source, its imports of calm turned into those of files beside it."""
    source = _source(module)
    lines = source.splitlines()
    for node in _own_imports(source):
        lines[node.lineno - 1] = lines[node.lineno - 1].replace(
            f"from {node.module} ", f"from .{_flat(str(node.module))} "
        )
    return "\n".join(lines) + "\n"
