"""Sections of params.yaml whose keys are open: datasets, tasks and losses, each checked by its own file."""

from __future__ import annotations

from calm.data import sources
from calm.evaluation import stage as evaluation
from calm.params import Params
from calm.settings import ParamsError


def check_open_sections(params: Params) -> None:
    """Check the settings of every dataset, task and further loss that has a file.

    One without a file may be of a later version; the stage that needs it says so.

    Raises:
        ParamsError: names every offending key by its dotted path.
        EvaluationError: evaluation.tasks names a file that is no task.
    """
    problems = []
    for named, known, check in (
        (params.data.datasets, sources.names(), sources.source),
        (params.evaluation.tasks, evaluation.names(), evaluation.settings),
    ):
        for name in sorted(set(named) & set(known)):
            try:
                check(name, params)
            except ParamsError as error:
                problems.append(str(error))
    for name, raw in params.pretrain.attributes.losses.items():
        from calm.training.losses.base import further_loss  # with torch, which takes seconds

        try:
            further_loss(name, raw)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ParamsError("\n".join(problems))
