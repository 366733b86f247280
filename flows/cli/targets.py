"""`edgeloop targets`."""

from __future__ import annotations

from typing import Annotated

from flows.cli.guard import Debug, guarded, typer

app = typer.Typer(help="The devices that models run on: this machine, and boards with an agent.")
TargetName = Annotated[str, typer.Argument(help="What the board is called here.")]


@app.callback(invoke_without_command=True)
def targets(context: typer.Context) -> None:
    """The targets that are known by name."""
    if context.invoked_subcommand is None:
        raise typer.Exit(guarded(_show_targets, False))


@app.command("list")
def targets_list() -> None:
    """The targets that are known by name."""
    raise typer.Exit(guarded(_show_targets, False))


@app.command("add")
def targets_add(
    name: TargetName,
    url: Annotated[str, typer.Argument(help="https://HOST:PORT of its agent.")],
    pair: Annotated[
        str, typer.Option(help="The line that `device-bench init` printed there; - reads it from stdin.")
    ],
    debug: Debug = False,
) -> None:
    """Pair with a board's agent: pins its certificate and keeps its token."""

    def run() -> int:
        from flows.measuring.targets import add_target

        return add_target(name, url, pair)

    raise typer.Exit(guarded(run, debug))


@app.command("remove")
def targets_remove(name: TargetName, debug: Debug = False) -> None:
    """Forget a board."""

    def run() -> int:
        from flows.measuring.targets import remove_target

        return remove_target(name)

    raise typer.Exit(guarded(run, debug))


@app.command("check")
def targets_check(name: TargetName, debug: Debug = False) -> None:
    """Whether a board (or "local") can be reached, and computes known models right."""

    def run() -> int:
        from flows.measuring.target_check import check_target

        return check_target(name)

    raise typer.Exit(guarded(run, debug))


def _show_targets() -> int:
    from flows.catalogue import show_targets

    show_targets()
    return 0
