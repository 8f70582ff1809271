"""Files that extend calm by being there: a task, a loss."""

from __future__ import annotations

import importlib
from typing import TypeVar

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
