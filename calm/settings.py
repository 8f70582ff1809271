"""Settings that params.yaml leaves open: those of datasets and evaluation tasks, which their own files declare.

`Params` cannot know them, so they are checked here, all at once and before anything runs: a mistyped key of the last
task should not wait until the models before it are trained.
"""

from __future__ import annotations

from calm.params import Params, ParamsError


def check_open_sections(params: Params) -> None:
    """Check the settings of every dataset and every task that has a file.

    One without a file may be of a later version; the stage that needs it says so.

    Raises:
        ParamsError: names every offending key by its dotted path.
        EvaluationError: evaluation.tasks names a file that is no task.
    """
    from calm import evaluation
    from calm.data import sources

    problems = []
    for name in sorted(set(params.data.datasets) & set(sources.names())):
        try:
            sources.source(name, params)
        except ParamsError as error:
            problems.append(str(error))
    for name in sorted(set(params.evaluation.tasks) & set(evaluation.names())):
        try:
            evaluation.settings(name, params)
        except ParamsError as error:
            problems.append(str(error))
    if problems:
        raise ParamsError("\n".join(problems))
