"""The taxonomy as data: three levels, attributes with states, and what each state means for pixels and for words.

One file in `calm/attributes/catalogue/` is one attribute, found by its name: nothing else has to be touched to add one.
Most are YAML and name their edits in `calm.attributes.operations`; one with an edit of its own is a module that ends in
an `ATTRIBUTE`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from calm.attributes import LEVELS, Level
from calm.settings import ParamsError, Section, Share, checked

# Order in which the edits of one photograph are applied, as light meets scene, lens, film, print and file.
Step = Literal["scene", "lens", "tone", "print", "file"]
STEPS: tuple[str, ...] = get_args(Step)
# A deterministic operation on (B, 3, H, W) in 0..1, each image by itself, with one strength and one seed per image.
EditFunction = Callable[..., Any]


class TaxonomyError(ValueError):
    """An attribute or state that does not exist, or a file of the catalogue that breaks a rule."""


def _operation(told: Any) -> Any:
    """A function of `calm.attributes.operations` by its name, or by key `function` beside fixed arguments."""
    if callable(told):
        return told
    from calm.attributes import operations

    name, fixed = (told, {}) if isinstance(told, str) else (told["function"], told)
    found = getattr(operations, name, None)
    if found is None:
        raise ValueError(f"calm.attributes.operations has no function '{name}'")
    return partial(found, **{key: value for key, value in fixed.items() if key != "function"}) if fixed else found


class Words(Section):
    """Base of what a file of the catalogue says; lists of YAML become tuples."""

    model_config = ConfigDict(strict=False)


class State(Words):
    """One way in which an attribute can stand.

    Attributes:
        name: unique in its attribute; with blanks for underscores, its label.
        phrases: independent clauses describing the state. `{very}` and `{too}` take a word of degree.
        nouns: noun phrases naming the state; the first, a short one, is told the language model, and comments use it.
        edit: the operation that brings a photograph into this state; None leaves it as it is.
        strength: the operation's argument at severity 0 (already visible) and 1 (clearly harmful, if it harms).
        harm: how much full severity spoils a photograph, 0..1; a matter of style has little.
        remedies: commands that undo the state.
        touches: quantities the edit changes; edits that share one are never drawn together, since one would hide
            or contradict the other.
        step: when the edit is applied, one of `STEPS`.
        measure, direction: a quantity that the edit moves up (+1) or down (-1), by which tests prove it.
        mirrored: the state in which the mirrored photograph is; None: the same.
        rare: whether people's photographs are hardly ever in this state: they are told of it only if it is sure.
        chosen: whether photographers choose it: nothing is wrong with a photograph in this state, nothing is told.
        turned_back: degrees clockwise; turned by one of them, a photograph in this state is as it should be.
        turned_on: degrees clockwise; turned by any of them, it is in this state still.
    """

    name: str
    phrases: Annotated[tuple[str, ...], Field(min_length=4)]
    nouns: Annotated[tuple[str, ...], Field(min_length=2)]
    edit: Annotated[EditFunction | None, BeforeValidator(_operation)] = None
    strength: tuple[float, float] = (0.0, 0.0)
    harm: Share = 0.0
    remedies: tuple[str, ...] = ()
    touches: frozenset[str] = frozenset()
    step: Step = "tone"
    measure: str | None = None
    direction: Literal[-1, 1] | None = None
    mirrored: str | None = None
    rare: bool = False
    chosen: bool = False
    turned_back: tuple[float, ...] = ()
    turned_on: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _edit_is_described(self) -> State:
        if self.edit is not None and (len(self.remedies) < 3 or not (self.touches and self.measure and self.direction)):
            raise ValueError(
                f"state '{self.name}' has an edit: it needs at least 3 remedies, touches, a measure and a direction"
            )
        if self.turned_on and not self.turned_back:
            raise ValueError(f"state '{self.name}': turned_on needs turned_back")
        return self

    @property
    def label(self) -> str:
        """The name as people write it."""
        return self.name.replace("_", " ")

    def strength_at(self, severity: float) -> float:
        """The operation's argument at a severity in 0..1."""
        mild, strong = self.strength
        return mild + severity * (strong - mild)


class Attribute(Words):
    """An aspect of a photograph, its unchanged state and the states that edits bring about."""

    name: str
    level: Level
    praised: bool = True  # whether it is worth a word that nothing is wrong with it
    unchanged: State
    states: Annotated[tuple[State, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _states_differ(self) -> Attribute:
        names = [state.name for state in self.all_states]
        if names[0] != "unchanged" or self.unchanged.edit is not None:
            raise ValueError("the unchanged state must be called 'unchanged' and have no edit")
        if len(set(names)) < len(names) or any(state.edit is None for state in self.states):
            raise ValueError(f"each state needs a name and an edit of its own: {', '.join(names)}")
        for state in self.states:
            if state.mirrored and self.state(state.mirrored).mirrored != state.name:
                raise ValueError(f"'{state.mirrored}' of '{self.name}' has to have mirrored: {state.name}")
        return self

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
        return _named(name, self.all_states, f"attribute '{self.name}' has no state '{name}'; it has")


Named = TypeVar("Named", State, Attribute)


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
        return _named(name, self.attributes, f"unknown attribute '{name}'; attributes are")

    def mirrored_rows(self, table: Sequence[Sequence[str]]) -> list[int]:
        """For each row of a table of (level, attribute, state), that of the state that the mirrored photograph has."""
        rows = {(attribute, state): row for row, (_, attribute, state) in enumerate(table)}
        states = ((name, self.attribute(name).state(state)) for name, state in rows)
        return [rows[name, state.mirrored or state.name] for name, state in states]


def _named(name: str, among: Sequence[Named], otherwise: str) -> Named:
    for one in among:
        if one.name == name:
            return one
    raise TaxonomyError(f"{otherwise}: {', '.join(one.name for one in among)}")


def discover(package: str, folders: Iterable[str]) -> Taxonomy:
    """Collect the attributes of every YAML file and of every module of `package` in `folders`.

    Raises:
        TaxonomyError: a file cannot be read, a module has no `ATTRIBUTE`, or one breaks a rule of the taxonomy.
    """
    folders = list(folders)
    found = [read_attribute(path) for folder in folders for path in sorted(Path(folder).glob("*.yaml"))]
    for module in pkgutil.iter_modules(folders):
        try:
            attribute = importlib.import_module(f"{package}.{module.name}").ATTRIBUTE
        except (AttributeError, ValidationError) as error:
            raise TaxonomyError(f"{package}.{module.name}: {error}") from None
        found.append(attribute)
    found.sort(key=lambda attribute: (LEVELS.index(attribute.level), attribute.name))
    names = [attribute.name for attribute in found]
    for name in names:
        if names.count(name) > 1:
            raise TaxonomyError(f"{package}: two files define the attribute '{name}'")
    return Taxonomy(tuple(found))


@cache
def taxonomy() -> Taxonomy:
    """The attributes in `calm/attributes/catalogue/`."""
    catalogue = importlib.import_module("calm.attributes.catalogue")
    return discover(catalogue.__name__, catalogue.__path__)


def read_attribute(path: Path) -> Attribute:
    """The attribute that a YAML file of the catalogue describes, called by the file's name.

    Raises:
        TaxonomyError: it is no YAML, a key is missing or unknown, a value is wrong, or there is no such operation.
    """
    try:
        told = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        named = {"name": path.stem, "unchanged": {"name": "unchanged", **told.pop("unchanged")}}
        states = [{"name": name, **keys} for name, keys in told.pop("states").items()]
        return checked(Attribute, {**told, **named, "states": states}, str(path))
    except KeyError as error:
        raise TaxonomyError(f"{path}: no key {error}") from None
    except (YAMLError, UnicodeDecodeError, TypeError, AttributeError, ParamsError) as error:
        raise TaxonomyError(f"{path}: {error}" if not isinstance(error, ParamsError) else str(error)) from None
