"""Sections `evaluation` and `report` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from calm.settings import PositiveInt, Section


class Bootstrap(Section):
    """Intervals of the quality figures."""

    samples: PositiveInt
    level: Annotated[float, Field(gt=0, lt=1)]


class TaskSettings(Section):
    """Settings under evaluation.tasks.NAME. A task with settings of its own extends this; unknown keys are errors."""

    model: str  # folder of the model that the task judges


class EvaluationParams(Section):
    """What is measured, on which model. Each task's settings are checked by its own file."""

    tasks: dict[str, dict[str, Any]]
    batch_size: PositiveInt
    bootstrap: Bootstrap


class ReportParams(Section):
    """What the page shows."""

    examples: PositiveInt
    max_new_tokens: PositiveInt
