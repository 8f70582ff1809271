"""Which exceptions are the user's business, and how they are told."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

USER_ERRORS = (ValueError, OSError)
FULL = {errno.ENOSPC, errno.EDQUOT}  # whoever wrote


class ReportedErrors(TyperGroup):
    """Errors that calm raised on purpose, and a full disk, are one message and exit code 1; others stay tracebacks."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen verb."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `| head` has seen enough: typer ends without a word
            raise
        except USER_ERRORS as error:
            if getattr(error, "errno", None) in FULL:
                tell(f"{error}: what was written last is not whole")
            elif raised_by_calm(error):
                tell(str(error))
            else:
                raise
            raise typer.Exit(1) from None


def raised_by_calm(error: BaseException) -> bool:
    """True when the innermost frame is calm's: then the message was written for the user.

    The same classes raised from inside a library (or from a wrong call of it) are bugs.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__", "")).split(".")[0] == "calm"


def tell(message: str) -> None:
    """One message to standard error, marked as an error, never folded: it may hold paths."""
    mark = "\x1b[1;31merror:\x1b[0m" if sys.stderr.isatty() else "error:"
    typer.echo(f"{mark} {message}", err=True)
