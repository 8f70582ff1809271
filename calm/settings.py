"""What every section of params.yaml is made of: a frozen section, ranges of numbers, and errors that name the key.

Each room declares its own sections (`calm/training/settings.py`, ...); `calm.params` puts them together. A task or a
loss extends calm by being there: `defined` finds its file by its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Model = TypeVar("Model", bound=BaseModel)


class ParamsError(ValueError):
    """Parameters that cannot be used; the message names every offending key."""


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def checked(model: type[Model], raw: object, where: str, prefix: str = "") -> Model:
    """Validate `raw` against `model`; all problems in one `ParamsError`, each with its dotted key after `prefix`."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(problem, prefix) for problem in error.errors()]
        raise ParamsError(f"{where}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _explain(problem: Mapping[str, Any], prefix: str) -> str:
    """One line for one of pydantic's error records."""
    tags = {"grammar", "openai", "chat", "batch", "lora", "full", "frozen"}
    location = [str(part) for part in problem["loc"]]
    key = ".".join(part for i, part in enumerate(location) if i == 0 or part not in tags)
    key = prefix + key if key else prefix.rstrip(".") or "(whole file)"
    match problem["type"]:
        case "extra_forbidden":
            variant = [part for part in location if part in tags]
            beside = f" (it would have no effect with '{variant[0]}')" if variant else ""
            return f"{key}: unknown key{beside}"
        case "missing":
            return f"{key}: missing"
        case "value_error":
            return str(problem["ctx"]["error"])
        case _:
            return f"{key}: {problem['msg']}, got {problem['input']!r}"


Kind = TypeVar("Kind")


def defined(package: str, name: str, constant: str, kind: type[Kind]) -> Kind:
    """What the file `name` of a package ends in: `constant`, of class `kind`.

    Raises:
        LookupError: there is no such file, or it does not define that.
    """
    path = f"{package.replace('.', '/')}/{name}.py"
    try:
        module = importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{package}.{name}":
            raise
        raise LookupError(f"{path} does not exist") from None
    found = getattr(module, constant, None)
    if not isinstance(found, kind):
        raise LookupError(f"{path} defines no {constant} = {kind.__name__}(...)")
    return found
