"""What every command shares: its common options, and errors as one message and an exit code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Annotated

from device_bench.errors import EdgeloopError

with warnings.catch_warnings():
    # typer 0.19 re-exports two names that click 8.5 deprecates; nothing here uses them.
    warnings.filterwarnings("ignore", "'click.utils", DeprecationWarning)
    import typer as typer  # handed on to the other modules

Json = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output, everything else on standard error.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def guarded(run: Callable[[], int], debug: bool) -> int:
    """Exit code of `run`: errors raised on purpose become one message, others too unless --debug is given."""
    try:
        return int(run())
    except EdgeloopError as error:
        if debug:
            raise
        _say("\n".join([f"error: {error}", *_notes(error)]))
        return error.exit_code
    except KeyboardInterrupt as error:
        _say("\n".join(["stopped", *_notes(error)]))
        return 130
    except BrokenPipeError:
        return 3
    except Exception as error:
        if debug:
            raise
        failure = "this is a failure of the run, not of its input; run it again with --debug to see where"
        _say("\n".join([f"error: {type(error).__name__}: {error}", failure, *_notes(error)]))
        return 3


def _notes(error: BaseException) -> list[str]:
    """What was added to the error on its way up: how to go on."""
    return list(getattr(error, "__notes__", []))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
