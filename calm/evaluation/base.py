"""What an evaluation task is: one file of this folder that ends in `TASK = Task(...)`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from calm.evaluation.settings import TaskSettings
from calm.evaluation.statistics.metrics import Bootstrap, Estimate, mean
from calm.instructions import rescale
from calm.layout import Layout
from calm.params import Params
from calm.seeds import stream
from calm.settings import Section

if TYPE_CHECKING:
    from PIL.Image import Image

    from calm.assistant import Calm
    from calm.data.store.shards import ImageStore

Settings = TypeVar("Settings", bound=Section, covariant=True)
# Which photograph a row of predictions is of, and the group by which a bootstrap resamples it.
ROW = [pa.field(name, pa.string(), nullable=False) for name in ("dataset", "item_id", "group")]


class EvaluationError(ValueError):
    """A task that cannot be evaluated; the message names what is missing and what to do."""


@dataclass(frozen=True)
class Bench(Generic[Settings]):
    """What a task works with: the model to judge, its checked settings, the test lists, photographs, seeded draws."""

    task: str
    params: Params
    layout: Layout
    model: Calm
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
        from calm.data.store.shards import ImageStore

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
    """What a task found. `plots` maps file names to bytes (SVG, PNG, CSV).

    `labels` in the metrics says what they are held against; an entry of them that is held against others has its own.
    """

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

    @classmethod
    def shuffled(cls, label: str, path: str, *beside: tuple[str, str]) -> Headline:
        """A figure that has beside it what other photographs' answers get."""
        return cls(label, path, (("shuffled", f"{path}.shuffled"), *beside))


@dataclass(frozen=True)
class Pair:
    """One figure of two models on the same photographs, and their paired difference."""

    label: str
    first: float | None
    second: float | None
    difference: Estimate
    higher_is_better: bool = True


def paired_means(
    label: str, first: Sequence[float], second: Sequence[float], groups: Sequence[Hashable], bootstrap: Bootstrap
) -> Pair:
    """A figure that is the mean of one number for each photograph."""
    ours, theirs = (float(np.mean(values)) if len(values) else None for values in (first, second))
    return Pair(label, ours, theirs, mean(np.subtract(first, second), groups, bootstrap, difference=True))


@dataclass(frozen=True)
class Task:
    """One evaluation task, found by the name of its file.

    `settings` is what params.evaluation.tasks.NAME must say; `run` finds it, checked, in its bench. `compared` is given
    the predictions of two models for the same photographs, row by row.
    """

    title: str
    about: str
    headlines: tuple[Headline, ...]
    run: Callable[[Bench[Any]], Outcome]
    settings: type[TaskSettings] = TaskSettings
    compared: Callable[[pd.DataFrame, pd.DataFrame, Bootstrap], list[Pair]] | None = None


def load_model(folder: Path, params: Params) -> Calm:
    """The model in `folder`, on the device and in the number format of params.runtime."""
    from calm.assistant import Calm

    return Calm.from_pretrained(folder, device=params.runtime.device, dtype=params.runtime.dtype)


def rated(bench: Bench, split: str) -> pd.DataFrame:
    """Items of a split with the crowd's score on 1..10: columns of ITEM, and score, cut, origin, votes and their ends.

    Raises:
        EvaluationError: an item has no crowd score, or several.
    """
    from calm.data.store.tables import ratings
    from calm.evaluation.statistics.calibration import cut

    rows = bench.items("scores", split)
    tables = [ratings(bench.layout, dataset) for dataset in sorted(rows["dataset"].unique())]
    kept = ["dataset", "item_id", "score", "score_min", "score_max", "votes", "origin"]
    crowd = pd.concat(tables).loc[lambda t: t["rater_id"].isna(), kept]
    merged = rows.merge(crowd, on=["dataset", "item_id"], how="left")
    if merged["score"].isna().any():
        row = merged[merged["score"].isna()].iloc[0]
        raise EvaluationError(f"{row['dataset']}: item '{row['item_id']}' is in the list of role 'scores' but unrated")
    if len(merged) > len(rows):
        row = merged[merged.duplicated(["dataset", "item_id"])].iloc[0]
        raise EvaluationError(f"{row['dataset']}: item '{row['item_id']}' has more than one crowd score")
    ends = list(zip(merged["score_min"], merged["score_max"], strict=True))
    return merged.assign(
        score=[rescale(score, *scale) for score, scale in zip(merged["score"], ends, strict=True)],
        cut=[cut(*scale) for scale in ends],
        # A histogram's steps lie evenly from end to end of its scale, which is 1..10 now.
        votes=pd.Series([None if votes is None else list(votes) for votes in merged["votes"]], dtype=object),
    )


def item_keys(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(dataset, item_id) of each row."""
    return list(zip(rows["dataset"], rows["item_id"], strict=True))


def group_keys(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(dataset, group) of each row: what a bootstrap resamples."""
    return list(zip(rows["dataset"], rows["group"], strict=True))


def origin_of_labels(origins: pd.Series) -> str:
    """'synthetic', 'human' or 'mixed', from an `origin` column."""
    synthetic = origins.str.startswith("synthetic")
    if synthetic.all():
        return "synthetic"
    return "mixed" if synthetic.any() else "human"
