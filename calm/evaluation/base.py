"""What an evaluation task is: one file of this folder that ends in `TASK = Task(...)`."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from calm.evaluation.settings import TaskSettings
from calm.evaluation.statistics.metrics import Bootstrap
from calm.layout import Layout
from calm.params import Params
from calm.seeds import stream
from calm.settings import Section

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from calm.assistant.personal import Observed
    from calm.data.store.images import ImageStore

Settings = TypeVar("Settings", bound=Section, covariant=True)


class Score(Protocol):
    """The three readouts of one photograph's score, its distribution, and the text as the model wrote it."""

    @property
    def text(self) -> float | None: ...
    @property
    def expectation(self) -> float: ...
    @property
    def regression(self) -> float: ...
    @property
    def distribution(self) -> tuple[float, ...]: ...
    @property
    def raw(self) -> str: ...


class Suggestion(Protocol):
    """What to do about a recognised state, or (without one) to leave the photograph as it is."""

    @property
    def attribute(self) -> str | None: ...
    @property
    def state(self) -> str | None: ...
    @property
    def text(self) -> str: ...
    @property
    def probability(self) -> float: ...


class Remedy(Protocol):
    """One remedy, for the state of the attribute that it undoes, as the language model alone judges it."""

    @property
    def attribute(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def log_odds(self) -> float: ...


class InContext(Protocol):
    """One rater's support set, ready to score other photographs by their visual tokens."""

    def score(self, tokens: Tensor, batch_size: int = 16) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...


class Assistant(Protocol):
    """The part of `calm.assistant.Calm` that tasks and report call."""

    @property
    def provenance(self) -> dict[str, Any]: ...
    def score(self, images: Sequence[Image], batch_size: int = 16) -> Sequence[Score]: ...
    def comment(self, images: Sequence[Image], batch_size: int = 16, max_new_tokens: int = 40) -> list[str]: ...
    def suggest(self, images: Sequence[Image], top: int = 3) -> Sequence[Sequence[Suggestion]]: ...
    def recognise(self, images: Sequence[Image]) -> Sequence[Sequence[tuple[str, str, float]]]: ...
    def rank_remedies(self, images: Sequence[Image]) -> Sequence[Sequence[Remedy]]: ...
    def attributes(self, images: Sequence[Image]) -> list[dict[str, dict[str, float]]]: ...
    def attention(self, images: Sequence[Image]) -> dict[str, NDArray[np.float32]]: ...
    def pooled_features(self, images: Sequence[Image]) -> NDArray[np.float32]: ...
    def observe(self, images: Sequence[Image], batch_size: int = 16) -> Observed: ...
    def in_context(self, support: Tensor, scores: Sequence[float]) -> InContext: ...


class EvaluationError(ValueError):
    """A task that cannot be evaluated; the message names what is missing and what to do."""


@dataclass(frozen=True)
class Bench(Generic[Settings]):
    """What a task works with: the model to judge, its checked settings, the test lists, photographs, seeded draws."""

    task: str
    params: Params
    layout: Layout
    model: Assistant
    settings: Settings

    @cached_property
    def bootstrap(self) -> Bootstrap:
        """Interval settings, seeded for this task."""
        settings = self.params.evaluation.bootstrap
        return Bootstrap(settings.samples, settings.level, self.params.seed)

    def rng(self, *names: str) -> np.random.Generator:
        """The task's own random stream of that name."""
        return stream(self.params.seed, "evaluate", self.task, *names)

    @cached_property
    def _stores(self) -> dict[str, ImageStore]:
        return {}

    def photograph(self, dataset: str, item_id: str) -> Image:
        """One prepared photograph, RGB."""
        from calm.data.store.images import ImageStore

        if dataset not in self._stores:
            self._stores[dataset] = ImageStore(self.layout.prepared(dataset))
        return self._stores[dataset][item_id]

    def batches(self, rows: pd.DataFrame) -> Iterator[list[Image]]:
        """The photographs of `rows` in order, evaluation.batch_size at a time: never a whole test set."""
        size = self.params.evaluation.batch_size
        keys = item_keys(rows)
        for start in range(0, len(keys), size):
            yield [self.photograph(*key) for key in keys[start : start + size]]

    def items(self, role: str, split: str = "test") -> pd.DataFrame:
        """Item rows (schema ITEM) of a role's list and split, ordered by dataset and id.

        Raises:
            EvaluationError: the list has no such row.
        """
        from calm.data.store.tables import items, role_list

        listed = role_list(self.layout, role)
        keys = listed.loc[listed["split"] == split, ["dataset", "item_id"]]
        if keys.empty:
            raise EvaluationError(
                f"task '{self.task}': the list of role '{role}' has no {split} rows; "
                "see data.roles and data.split in params.yaml"
            )
        tables = [items(self.layout, dataset) for dataset in sorted(keys["dataset"].unique())]
        rows = pd.concat(tables).merge(keys.drop_duplicates(), on=["dataset", "item_id"], validate="one_to_one")
        if len(rows) < len(keys.drop_duplicates()):
            raise EvaluationError(f"task '{self.task}': the list of role '{role}' names items that were never prepared")
        return rows.sort_values(["dataset", "item_id"], ignore_index=True)

    def at_most(self, rows: pd.DataFrame, most: int) -> pd.DataFrame:
        """A seeded draw of `most` rows, or all of them if they are fewer, in their order."""
        if len(rows) <= most:
            return rows
        kept = np.sort(self.rng("items").choice(len(rows), size=most, replace=False))
        return rows.iloc[kept].reset_index(drop=True)


@dataclass(frozen=True)
class Outcome:
    """What a task found. `plots` maps file names to bytes (SVG, PNG, CSV)."""

    metrics: dict[str, Any]
    predictions: pd.DataFrame
    schema: pa.Schema
    plots: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Headline:
    """A figure that tables show: its path in metrics.json, and (label, path) of what chance or a baseline reaches."""

    label: str
    path: str
    beside: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Task:
    """One evaluation task, found by the name of its file.

    `settings` is what params.evaluation.tasks.NAME must say; `run` finds it, checked, in its bench.
    """

    title: str
    about: str
    headlines: tuple[Headline, ...]
    run: Callable[[Bench[Any]], Outcome]
    settings: type[TaskSettings] = TaskSettings


def load_model(folder: Path, params: Params) -> Assistant:
    """The model in `folder`, on the device and in the number format of params.runtime."""
    from calm.assistant import Calm

    model: Assistant = Calm.from_pretrained(folder, device=params.runtime.device, dtype=params.runtime.dtype)
    return model


def item_keys(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(dataset, item_id) of each row."""
    return list(zip(rows["dataset"], rows["item_id"], strict=True))


def group_keys(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(dataset, group) of each row: what a bootstrap resamples."""
    return list(zip(rows["dataset"], rows["group"], strict=True))


def elsewhere(groups: Sequence[Hashable], rng: np.random.Generator) -> list[int]:
    """A seeded permutation that gives each row the index of a row of another group, wherever the groups allow it.

    Raises:
        EvaluationError: all rows are of one group, so that there is no other photograph.
    """
    if len(set(groups)) < 2:
        raise EvaluationError("all photographs are of one group: comments cannot be shuffled between photographs")
    order = list(map(int, rng.permutation(len(groups))))
    place = {group: number for number, group in enumerate(dict.fromkeys(groups[index] for index in order))}
    order.sort(key=lambda index: place[groups[index]])
    largest = max(Counter(groups).values())
    shifted = [0] * len(groups)  # rows lie group by group: a shift by the largest group leaves every group
    for position, index in enumerate(order):
        shifted[index] = order[(position + largest) % len(order)]
    return shifted


def origin_of_labels(origins: pd.Series) -> str:
    """'synthetic', 'human' or 'mixed', from an `origin` column."""
    synthetic = origins.str.startswith("synthetic")
    if synthetic.all():
        return "synthetic"
    return "mixed" if synthetic.any() else "human"


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A table for `dvc plots`, figures rounded so that the bytes do not hang on the last bit of a sum."""
    buffer = io.StringIO()
    frame.round(6).to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue().encode("utf-8")
