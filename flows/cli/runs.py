"""`edgeloop runs` and `edgeloop report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from flows.cli.guard import Debug, Json, guarded, typer

app = typer.Typer(help="What runs there are, what they found, and how two differ.", no_args_is_help=True)
Runs = Annotated[Path, typer.Option(help="The folder of runs: what `compress --out` was.")]
RUN_HELP = "A run: its folder, its name, or any part of the name that no other run has."


@app.command("list")
def runs_list(
    runs: Runs = Path("runs"),
    limit: Annotated[int, typer.Option(help="So many of the newest; 0 for all.", min=0)] = 20,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """All runs, the newest first, and how to go on with those that did not end."""

    def run() -> int:
        from flows.runs.listing import list_runs

        return list_runs(runs, limit, as_json=json)

    raise typer.Exit(guarded(run, debug))


@app.command("show")
def runs_show(
    run: Annotated[str, typer.Argument(help=RUN_HELP)],
    runs: Runs = Path("runs"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """One run: what was asked for, every trial, what was found, and where the time went."""

    def start() -> int:
        from flows.runs.show import show_run

        return show_run(run, runs, as_json=json)

    raise typer.Exit(guarded(start, debug))


@app.command("compare")
def runs_compare(
    a: Annotated[str, typer.Argument(help=RUN_HELP)],
    b: Annotated[str, typer.Argument(help="The run to hold against it.")],
    html: Annotated[
        Path | None, typer.Option(help="Write both side by side as a page, too: both.html.")
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """What B found beside what A found, and what differs in their plans and conditions."""

    def start() -> int:
        from flows.runs.compare import compare_runs

        return compare_runs((a, b), runs, html, as_json=json)

    raise typer.Exit(guarded(start, debug))


def report(
    run: Annotated[
        str | None, typer.Argument(help=f"{RUN_HELP} Default: the newest finished one.", show_default=False)
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    runs: Runs = Path("runs"),
    debug: Debug = False,
) -> None:
    """Write a run's report anew from its files; --open shows it."""

    def start() -> int:
        from flows.runs.report import report_run

        return report_run(run, runs, opened=open_)

    raise typer.Exit(guarded(start, debug))
