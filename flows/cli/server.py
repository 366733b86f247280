"""`edgeloop server`."""

from __future__ import annotations

from typing import Annotated

from flows.cli.guard import Debug, Json, guarded, typer

app = typer.Typer(
    help="Prefect's server, a work pool and a worker on this machine, for flows on a schedule.",
    no_args_is_help=True,
)


@app.command("up")
def server_up(
    api_url: Annotated[
        str | None,
        typer.Option(help="Use this Prefect server (http://HOST:PORT/api): start a pool and a worker only."),
    ] = None,
    host: Annotated[str, typer.Option(help="Interface of a server started here.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Its port; 0 takes a free one. Default: 4200.", min=0, max=65535)
    ] = None,
    pool: Annotated[str, typer.Option(help="Work pool; made where it is missing.")] = "edgeloop",
    worker: Annotated[
        str | None, typer.Option(help="What this machine's worker is called. Default: the machine's name.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Flow runs at a time on this machine.", min=1)] = 1,
    debug: Debug = False,
) -> None:
    """Bring up server, work pool and worker, and stay until Ctrl-C, which ends all of them."""

    def run() -> int:
        from flows.deployments.up import UpRequest
        from flows.deployments.up import server_up as start

        return start(UpRequest(api_url, host, port, pool, worker, limit))

    raise typer.Exit(guarded(run, debug))


@app.command("status")
def server_status(json: Json = False, debug: Debug = False) -> None:
    """What stands, what is deployed, and how the latest runs went."""

    def run() -> int:
        from flows.deployments.status import server_status as show

        return show(as_json=json)

    raise typer.Exit(guarded(run, debug))
