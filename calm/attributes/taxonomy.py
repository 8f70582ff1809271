"""The taxonomy as data: three levels, attributes with states, and what each state means for pixels and for words.

One file in `calm/attributes/catalogue/` is one attribute, found by its name: nothing else has to be touched to add one.
Most are YAML and name their edits in `calm.attributes.operations`; one with an edit of its own is a module that ends in
an `ATTRIBUTE`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from calm.attributes import LEVELS

if TYPE_CHECKING:
    from torch import Tensor

# Order in which the edits of one photograph are applied, as light meets scene, lens, film, print and file.
STEPS = ("scene", "lens", "tone", "print", "file")


class TaxonomyError(ValueError):
    """An attribute or state that does not exist, or a file of the catalogue that breaks a rule."""


class EditFunction(Protocol):
    """A deterministic image operation, each image by itself."""

    def __call__(self, images: Tensor, strength: Sequence[float], seeds: Sequence[int], /) -> Tensor:
        """Return edited images, (B, 3, H, W) in 0..1, for `images` of that shape; one strength and seed per image."""
        ...


class MeasureFunction(Protocol):
    """A quantity of each image: (B, 3, H, W) in 0..1 -> (B,)."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Return one number per image."""
        ...


@dataclass(frozen=True)
class State:
    """One way in which an attribute can stand.

    Attributes:
        name: unique in its attribute; with blanks for underscores, its label.
        edit: the operation that brings a photograph into this state; None leaves it as it is.
        strength: the operation's argument at severity 0 (already visible) and 1 (clearly harmful, if it harms).
        harm: how much full severity spoils a photograph, 0..1; a matter of style has little.
        phrases: independent clauses describing the state. `{very}` and `{too}` take a word of degree.
        nouns: noun phrases naming the state; the first, a short one, is told the language model, and comments use it.
        remedies: commands that undo the state.
        touches: quantities the edit changes; edits that share one are never drawn together, since one would hide
            or contradict the other.
        step: when the edit is applied, one of `STEPS`.
        measure, direction: a quantity that the edit moves up (+1) or down (-1).
    """

    name: str
    edit: EditFunction | None = None
    strength: tuple[float, float] = (0.0, 0.0)
    harm: float = 0.0
    phrases: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    touches: frozenset[str] = frozenset()
    step: str = "tone"
    measure: MeasureFunction | None = None
    direction: int | None = None

    @property
    def label(self) -> str:
        """The name as people write it."""
        return self.name.replace("_", " ")

    def strength_at(self, severity: float) -> float:
        """The operation's argument at a severity in 0..1."""
        mild, strong = self.strength
        return mild + severity * (strong - mild)


@dataclass(frozen=True)
class Attribute:
    """An aspect of a photograph, its unchanged state and the states that edits bring about."""

    name: str
    level: str
    unchanged: State
    states: tuple[State, ...]

    @property
    def title(self) -> str:
        """The name as a heading."""
        return self.name.replace("_", " ").capitalize()

    @property
    def all_states(self) -> tuple[State, ...]:
        """Every state, unchanged first."""
        return (self.unchanged, *self.states)

    @property
    def touches(self) -> frozenset[str]:
        """Every quantity that one of its states changes."""
        return frozenset().union(*(state.touches for state in self.states))

    def state(self, name: str) -> State:
        """The state of that name.

        Raises:
            TaxonomyError: there is none; the message lists those there are.
        """
        for state in self.all_states:
            if state.name == name:
                return state
        known = ", ".join(state.name for state in self.all_states)
        raise TaxonomyError(f"attribute '{self.name}' has no state '{name}'; it has: {known}")


@dataclass(frozen=True)
class Taxonomy:
    """All attributes, low level first and by name within a level."""

    attributes: tuple[Attribute, ...]

    def at(self, level: str) -> tuple[Attribute, ...]:
        """Attributes of one level."""
        if level not in LEVELS:
            raise TaxonomyError(f"unknown level '{level}'; levels are {', '.join(LEVELS)}")
        return tuple(attribute for attribute in self.attributes if attribute.level == level)

    def attribute(self, name: str) -> Attribute:
        """The attribute of that name.

        Raises:
            TaxonomyError: there is none; the message lists those there are.
        """
        for attribute in self.attributes:
            if attribute.name == name:
                return attribute
        known = ", ".join(attribute.name for attribute in self.attributes)
        raise TaxonomyError(f"unknown attribute '{name}'; attributes are: {known}")


def discover(package: str, folders: Iterable[str]) -> Taxonomy:
    """Collect the attributes of every YAML file and of every module of `package` in `folders`.

    Raises:
        TaxonomyError: a file cannot be read, a module has no `ATTRIBUTE`, or one breaks a rule of the taxonomy.
    """
    found = []
    for path in sorted(path for folder in folders for path in Path(folder).glob("*.yaml")):
        found.append(read_attribute(path))
        _check(found[-1], str(path))
    for module in pkgutil.iter_modules(list(folders)):
        attribute = getattr(importlib.import_module(f"{package}.{module.name}"), "ATTRIBUTE", None)
        if not isinstance(attribute, Attribute):
            raise TaxonomyError(f"{package}.{module.name} does not define ATTRIBUTE = Attribute(...)")
        _check(attribute, f"{package}.{module.name}")
        found.append(attribute)
    ordered = sorted(found, key=lambda attribute: (LEVELS.index(attribute.level), attribute.name))
    names = [attribute.name for attribute in ordered]
    for name in names:
        if names.count(name) > 1:
            raise TaxonomyError(f"{package}: two files define the attribute '{name}'")
    return Taxonomy(tuple(ordered))


@cache
def taxonomy() -> Taxonomy:
    """The attributes in `calm/attributes/catalogue/`."""
    catalogue = importlib.import_module("calm.attributes.catalogue")
    return discover(catalogue.__name__, catalogue.__path__)


def read_attribute(path: Path) -> Attribute:
    """The attribute that a YAML file of the catalogue describes, called by the file's name.

    Raises:
        TaxonomyError: it is no YAML, a key is unknown, or there is no such operation or measure.
    """
    try:
        told = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        states = [_state(name, keys) for name, keys in told["states"].items()]
        return Attribute(path.stem, told["level"], _state("unchanged", told["unchanged"]), tuple(states))
    except KeyError as error:
        raise TaxonomyError(f"{path}: no key {error}") from None
    except (YAMLError, UnicodeDecodeError, TypeError, AttributeError, ImportError) as error:
        raise TaxonomyError(f"{path}: {error}") from None


def _state(name: str, keys: Mapping[str, Any]) -> State:
    """A state from its keys in YAML: those of `State`, functions by their names."""
    from calm.attributes import measures

    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()}
    if "edit" in keys:
        values["edit"] = _operation(keys["edit"])
        values["touches"] = frozenset(keys.get("touches", ()))
        values["measure"] = getattr(measures, keys["measure"])
    return State(name, **values)


def _operation(told: str | Mapping[str, Any]) -> EditFunction:
    """`MODULE.FUNCTION` of `calm.attributes.operations`, by itself or as key `function` beside fixed arguments."""
    fixed = {} if isinstance(told, str) else {key: value for key, value in told.items() if key != "function"}
    module, function = (told if isinstance(told, str) else told["function"]).split(".")
    found: EditFunction = getattr(importlib.import_module(f"calm.attributes.operations.{module}"), function)
    return partial(found, **fixed) if fixed else found


def _check(attribute: Attribute, where: str) -> None:
    """Refuse an attribute that other rooms could not use."""
    if attribute.level not in LEVELS:
        raise TaxonomyError(f"{where}: level '{attribute.level}' is none of {', '.join(LEVELS)}")
    if not attribute.states:
        raise TaxonomyError(f"{where}: no states beside 'unchanged'")
    if attribute.unchanged.name != "unchanged" or attribute.unchanged.edit is not None:
        raise TaxonomyError(f"{where}: the unchanged state must be called 'unchanged' and have no edit")
    names = [state.name for state in attribute.all_states]
    if len(set(names)) < len(names):
        raise TaxonomyError(f"{where}: a state's name is used twice: {', '.join(names)}")
    for state in attribute.all_states:
        _check_words(state, where)
    for state in attribute.states:
        _check_edit(state, where)


def _check_words(state: State, where: str) -> None:
    if len(state.phrases) < 4 or len(state.nouns) < 2:
        raise TaxonomyError(f"{where}: state '{state.name}' needs at least 4 phrases and 2 nouns")
    if state.edit is not None and len(state.remedies) < 3:
        raise TaxonomyError(f"{where}: state '{state.name}' needs at least 3 remedies")


def _check_edit(state: State, where: str) -> None:
    if state.edit is None or state.measure is None or state.direction not in (-1, 1):
        raise TaxonomyError(f"{where}: state '{state.name}' needs an edit, a measure and a direction of +1 or -1")
    if state.step not in STEPS:
        raise TaxonomyError(
            f"{where}: state '{state.name}' has step '{state.step}', which is none of {', '.join(STEPS)}"
        )
    if not state.touches:
        raise TaxonomyError(f"{where}: state '{state.name}' must say what it touches")
    if not 0 <= state.harm <= 1:
        raise TaxonomyError(f"{where}: state '{state.name}' has harm {state.harm}, which is not in 0..1")
