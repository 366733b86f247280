"""`edgeloop store`."""

from __future__ import annotations

from typing import Annotated

from flows.cli.guard import Debug, Json, guarded, typer

app = typer.Typer(
    help="The database of trials and of the fleet's history: a SQLite file, or PostgreSQL by URL.",
    no_args_is_help=True,
)
Store = Annotated[
    str | None,
    typer.Option(help="A SQLite file or a database's URL.", envvar="EDGELOOP_STORE", show_envvar=True),
]


@app.command("status")
def store_status(store: Store = None, json: Json = False, debug: Debug = False) -> None:
    """Where the store is, what it holds, and whether its tables are this edgeloop's."""

    def run() -> int:
        from flows.store import show_store

        return show_store(store, as_json=json)

    raise typer.Exit(guarded(run, debug))


@app.command("upgrade")
def store_upgrade(store: Store = None, debug: Debug = False) -> None:
    """Make the store's tables, or bring those of an earlier edgeloop to this one's."""

    def run() -> int:
        from flows.store import bring_up_store

        return bring_up_store(store)

    raise typer.Exit(guarded(run, debug))
