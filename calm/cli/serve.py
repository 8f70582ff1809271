"""`calm serve`: the model on a page, or behind the requests of OpenAI's clients."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calm.cli.people import Device, Model, origin
from calm.cli.photographs import find_photographs
from calm.cli.printing import tell
from calm.cli.stages import quiet_libraries

if TYPE_CHECKING:
    import numpy as np

app = typer.Typer()


@app.command(rich_help_panel="Photographs")
def serve(
    folder: Annotated[str | None, typer.Argument(help="Photographs to begin with.", show_default=False)] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    host: Annotated[str, typer.Option(help="0.0.0.0 opens it to everybody who reaches this machine.")] = "127.0.0.1",
    api: Annotated[bool, typer.Option("--api", help="No page: answer the requests of OpenAI's clients.")] = False,
    public: Annotated[str | None, typer.Option(help="Whose taste, as `calm score --public`.")] = None,
    model: Model = None,
    device: Device = "auto",
) -> None:
    """A page to drop photographs on: scores, comments, suggestions, and their order by your own taste."""
    if folder is not None and api:
        raise ValueError(f"--api shows no page, so nothing would be done with {folder}: leave one of them out")
    if find_spec("gradio") is None:
        sys.path.append(str(Path(sys.prefix) / "page"))  # last: whatever is in the environment comes from there
        if find_spec("gradio") is None:
            raise ValueError("the server comes with gradio, which is not installed: run `make page` in calm's checkout")
    photographs, problems = find_photographs([] if folder is None else [folder])
    for problem in problems:
        tell(problem)
    if problems:
        raise typer.Exit(1)
    check_port(host, port)
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")  # gradio asks its own server whether it is there
    quiet_libraries()
    from calm.assistant import Calm

    calm = Calm.from_pretrained(model, device=device)
    asked = calm.public(public)

    def ready(address: str) -> None:
        typer.echo(f"{address} (Ctrl-C stops it)")

    if api:
        from calm import endpoint

        endpoint.serve(endpoint.Endpoint(calm, asked), host, port, ready)
    else:
        from calm import page

        page.serve(page.Page(calm, photographs, asked, origin(calm, asked), personal), host, port, ready)


def check_port(host: str, port: int) -> None:
    """Before a model is read, which takes seconds.

    Raises:
        OSError: the port cannot be used.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise OSError(f"{host}:{port} cannot be used: name another port with --port") from error


def personal(pooled: np.ndarray, generic: np.ndarray, given: Mapping[int, float]) -> list[float]:
    """Scores of all rows as `calm personalise` gives them, learnt from the rows in `given` (1 to 10).

    Raises:
        ValueError: too few are given, or all the same.
    """
    import numpy as np

    from calm.cli.personalise import LEAST, within
    from calm.evaluation.statistics.ridge import Scaling, ridge

    rows, scores = list(given), np.array(list(given.values()))
    if len(rows) < LEAST:
        raise ValueError(f"You have scored {len(rows)}: score {LEAST} photographs or more, best ten, and try again")
    if len(set(given.values())) == 1:
        raise ValueError("You gave every photograph the same score: there is nothing to learn")
    scaling = Scaling.fit(pooled[rows])
    found = generic + ridge(scaling(pooled[rows]), scores - generic[rows], scaling(pooled))
    return [1 + 9 * share for share in within(found)]
