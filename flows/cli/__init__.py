"""The `edgeloop` command. Heavy imports stay inside the commands: help must come at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from flows.cli import (
    bench,
    catalogue,
    compress,
    experience,
    fleet,
    learning,
    policy,
    runs,
    server,
    store,
    targets,
)
from flows.cli.guard import typer

app = typer.Typer(
    name="edgeloop",
    help="Compress a trained network for the devices it will really run on, and prove it there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(compress.compress)
app.command()(bench.bench)
app.command()(bench.calibrate)
app.command()(runs.report)
app.command()(fleet.release)
app.command()(learning.personalize)
app.command("meta-train")(learning.meta_train)
app.command()(catalogue.models)
app.command()(catalogue.data)
app.add_typer(runs.app, name="runs")
app.add_typer(targets.app, name="targets")
app.add_typer(fleet.app, name="fleet")
app.add_typer(policy.app, name="policy")
app.add_typer(experience.app, name="experience")
app.add_typer(store.app, name="store")
app.add_typer(server.app, name="server")


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"edgeloop {version('edgeloop')}")
        raise typer.Exit


@app.callback()
def edgeloop(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Compress a trained network for the devices it will really run on, and prove it there."""


def main() -> None:
    """Entry point of the console script."""
    # Modules named as module:callable are found from where the user stands.
    sys.path.insert(0, str(Path.cwd()))
    app()
