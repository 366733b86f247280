"""`edgeloop experience`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from flows.cli.guard import Debug, Json, guarded, typer

app = typer.Typer(help="What was tried in all runs: what policies are trained on.", no_args_is_help=True)
Store = Annotated[
    str | None,
    typer.Option(
        help="Another store: a SQLite file or a database's URL. Default: the one that runs keep.",
        envvar="EDGELOOP_STORE",
    ),
]


@app.command("export")
def experience_export(
    file: Annotated[Path, typer.Argument(help="The file to write (JSON Lines).")],
    store: Store = None,
    debug: Debug = False,
) -> None:
    """Write all trials of all runs to a file."""

    def run() -> int:
        from flows.training.experience import export_to

        return export_to(file, store)

    raise typer.Exit(guarded(run, debug))


@app.command("import")
def experience_import(
    file: Annotated[Path, typer.Argument(help="A file that `experience export` wrote.")],
    store: Store = None,
    debug: Debug = False,
) -> None:
    """Merge a file into the store; what is there already stays as it is."""

    def run() -> int:
        from flows.training.experience import import_from

        return import_from(file, store)

    raise typer.Exit(guarded(run, debug))


@app.command("stats")
def experience_stats(
    store: Store = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Trials, runs, failures and the best speed-up, by task, policy and target."""

    def run() -> int:
        from flows.training.experience import show_stats

        return show_stats(store, as_json=json)

    raise typer.Exit(guarded(run, debug))
