"""A checkpoint leaves the house: as a folder that transformers reads where calm is not, or to the model hub and back.

On the hub it is pushed as one commit and read back at one revision. Tokens come from the environment.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from calm import __version__
from calm.io import atomic_dir
from calm.model.build import load_complete
from calm.model.released import CARD, FOLDER, is_released, load_released
from calm.model.settings import Runtime

_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?")
_SNAPSHOT = re.compile(r".*models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<revision>[0-9a-f]+)/?")
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
_MODULES = ("calm.model.modeling", "calm.model.processing", "calm.model.efficientnet_lite")
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


class HubError(ValueError):
    """The model hub refused, does not know a model, or cannot be reached; the message says what to do."""


def is_name(model: Path | str) -> bool:
    """Whether a model's name is one of the hub, ORG/NAME or ORG/NAME@REVISION, and no folder here."""
    return not Path(model).exists() and _NAME.fullmatch(str(model)) is not None


def fetch(name: str) -> Path:
    """The folder of the hub's model ORG/NAME, or of its revision ORG/NAME@REVISION; downloaded where it is not yet.

    Nothing of it is run: calm reads its tensors with its own code.

    Raises:
        HubError: there is no such model or revision, it is not open to this person, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    found = _NAME.fullmatch(name)
    assert found is not None, name
    with _told(name):
        folder = snapshot_download(found["repository"], revision=found["revision"], ignore_patterns="*.py")
    return Path(folder)


def revision_of(folder: Path) -> str | None:
    """ORG/NAME@REVISION of a folder that `fetch` gave; None of another."""
    found = _SNAPSHOT.fullmatch(folder.as_posix())
    return f"{found['owner']}/{found['name']}@{found['revision'][:12]}" if found else None


def push(folder: Path, name: str, *, private: bool) -> str:
    """Write every file of an exported checkpoint to the model ORG/NAME, in one commit; returns its revision.

    Raises:
        HubError: as `fetch`; nothing of the commit is visible then.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if "@" in name or _NAME.fullmatch(name) is None:
        raise HubError(f"'{name}' is no name of a model on the hub: write ORG/NAME")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
    with _told(name):
        api = HfApi(library_name="calm", library_version=__version__)
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.create_commit(name, operations, commit_message=f"calm {__version__}").oid)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn what the hub's library raises into one line."""
    import httpx2 as httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except HFValidationError as error:
        raise HubError(f"'{name}' is no name of a model on the hub: {error}") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError) as error:
        # Where the hub fails, downloads look for a copy here, and fail for want of one.
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
        raise HubError(
            f"{name}: {_why(cause.response.status_code if isinstance(cause, HfHubHTTPError) else None)}"
        ) from None
    except OSError as error:  # a file that came as half of one, a full disk
        raise HubError(f"{name}: {error}") from None


def _why(status: int | None) -> str:
    """What the hub's answer means for a person; None: there was none."""
    match status:
        case None:
            return "there is no folder of this name, and the hub cannot be reached"
        case 401 | 403:
            return "the hub refused: set HF_TOKEN to a token that may do this"
        case 404:
            return "not on the hub, or not open to you: check the name, or set HF_TOKEN"
        case _:
            return f"the hub answered with status {status}: try again later"
