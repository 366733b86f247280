"""`device-bench emulate`: any of its commands on an emulated Arm board."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

with warnings.catch_warnings():
    # typer 0.19 re-exports two names that click 8.5 deprecates; nothing here uses them.
    warnings.filterwarnings("ignore", "'click.utils", DeprecationWarning)
    import typer


def default_folder() -> Path:
    """Where a board is kept: $XDG_CACHE_HOME/edgeloop-arm, or ~/.cache/edgeloop-arm."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "edgeloop-arm"


def add_commands(app: typer.Typer, errors_on_screen: Callable[[bool], AbstractContextManager[None]]) -> None:
    """Add `emulate` to `device-bench`."""

    @app.command(
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    def emulate(
        words: Annotated[
            list[str],
            typer.Argument(help="A command of device-bench, with its options.", metavar="COMMAND..."),
        ],
        core: Annotated[str, typer.Option(help="cortex-a53, cortex-a72 or cortex-a76.")] = "cortex-a72",
        folder: Annotated[
            Path | None, typer.Option(help="Where the board is kept. Default: ~/.cache/edgeloop-arm.")
        ] = None,
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    ) -> None:
        """Run COMMAND on an emulated 64-bit Arm board (QEMU); built on first use, in about 30 s."""
        with errors_on_screen(debug):
            from device_bench.emulated.board import Board, build

            board = Board((folder or default_folder()).absolute(), core)
            typer.echo(f"an emulated {core}, in {board.folder}; its times are no latencies", err=True)
            build(board)
            command = board.command(words)
            os.execve(command[0], command, board.environment())
