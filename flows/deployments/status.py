"""`edgeloop server status`: what stands, what is deployed, and how the latest runs went."""

from __future__ import annotations

import asyncio
import os
import sys

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.protocol import Record
from device_bench.screen import wide_console
from flows.compression.start import PREFECT_SETTINGS
from flows.deployments.announcements import COLOURS, HOW_TO_DEPLOY, held_up, when
from flows.deployments.pool import (
    DeployedFlow,
    FlowRunLine,
    PoolState,
    deployed_flows,
    pool_state,
    recent_runs,
    worker_is_online,
)
from flows.deployments.standing import Standing, office_here

UP, DOWN = 0, 1
LATEST = 10


class ServerStatus(Record):
    """What `edgeloop server status --json` prints.

    Args:
        up: a `server up` of this user runs here, and its server answers.
        worker_online: by the server's own word.
        runs: the latest, oldest first.
        pool: None where the server does not answer.
    """

    up: bool
    server: Standing | None = None
    answers: bool = False
    worker_online: bool = False
    deployments: tuple[DeployedFlow, ...] = ()
    runs: tuple[FlowRunLine, ...] = ()
    pool: PoolState | None = None


def server_status(*, as_json: bool) -> int:
    """Show it; returns 0 if all is up and 1 if not."""
    os.environ.update({name: os.environ.get(name, value) for name, value in PREFECT_SETTINGS.items()})
    office = office_here()
    from prefect.settings import PREFECT_API_URL, temporary_settings

    standing = office.record()
    if standing is None or not office.is_held:
        status = ServerStatus(up=False)
    else:
        with temporary_settings({PREFECT_API_URL: standing.api_url}):
            status = asyncio.run(_asked(standing))
    if as_json:
        sys.stdout.write(status.model_dump_json(indent=2) + "\n")
    else:
        _show(status, wide_console())
    return UP if status.up else DOWN


async def _asked(standing: Standing) -> ServerStatus:
    from prefect import get_client

    try:
        async with get_client() as client:
            online = await worker_is_online(client, standing.pool, standing.worker)
            return ServerStatus(
                up=online,
                server=standing,
                answers=True,
                worker_online=online,
                deployments=tuple(await deployed_flows(client, standing.pool)),
                pool=await pool_state(client, standing.pool),
                runs=tuple((await recent_runs(client, standing.pool))[-LATEST:]),
            )
    except httpx.HTTPError:
        return ServerStatus(up=False, server=standing)


def _show(status: ServerStatus, console: Console) -> None:
    if status.server is None:
        console.print(
            "nothing is up here; `edgeloop server up` brings up a server and a worker", highlight=False
        )
        return
    grid = Table.grid(padding=(0, 2))
    answers = "" if status.answers else " [red]does not answer[/red]"
    grid.add_row("Prefect's API", escape(status.server.api_url) + answers)
    online = "online" if status.worker_online else "[red]offline[/red]"
    grid.add_row("worker", f"{escape(status.server.worker)} on pool {escape(status.server.pool)}, {online}")
    grid.add_row(
        "since", f"{status.server.started_at.astimezone():%Y-%m-%d %H:%M}, process {status.server.pid}"
    )
    for number, one in enumerate(status.deployments):
        grid.add_row("" if number else "deployments", escape(f"{one.name}, {when(one)}"))
    if not status.deployments:
        grid.add_row("deployments", HOW_TO_DEPLOY)
    if status.pool is not None and (status.pool.is_paused or status.pool.waiting):
        grid.add_row("work pool", escape(held_up(status.pool)))
    console.print(grid, highlight=False)
    for run in status.runs:
        console.print(run_line(run), style=COLOURS.get(run.kind, ""), highlight=False, soft_wrap=True)


def run_line(run: FlowRunLine) -> str:
    """When, which deployment, which run, its state, and what that says."""
    message = f": {run.message}" if run.message else ""
    moment = f"{run.at.astimezone():%Y-%m-%d %H:%M:%S}"
    return escape(f"{moment}  {run.deployment}  {run.name}  {run.state}{message}")
