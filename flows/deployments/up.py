"""`edgeloop server up`: Prefect's server, a work pool and a worker on this machine, in one command.

Against a server of the user's own (`--api-url`, PREFECT_API_URL or Prefect's profile) only pool and worker.
What ends by itself is started again, and what flow runs lost with a killed process is scheduled again.
Everything ends with the command, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from device_bench.screen import wide_console
from flows.compression.start import PREFECT_SETTINGS
from flows.deployments.children import Child
from flows.deployments.ending import end_processes, living
from flows.deployments.leases import LEASES_ON_DISK, forget_leases
from flows.deployments.ledger import FOLDER_VARIABLE
from flows.deployments.pool import DEFAULT_POOL
from flows.deployments.profile import put_right
from flows.deployments.standing import Office, Standing, office_here
from flows.deployments.told import Meant, meant_server
from flows.deployments.watch import Watch


@dataclass(frozen=True)
class UpRequest:
    """The command line of `edgeloop server up`.

    Args:
        api_url: of a server of the user's own; None for the one that Prefect is told of, if any.
        host: interface for a server started here.
        port: its port; 0 takes a free one, None the usual one.
        pool: the work pool.
        worker: what this machine's worker is called; None for the machine's name.
        limit: flow runs at a time.
    """

    api_url: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    pool: str = DEFAULT_POOL
    worker: str | None = None
    limit: int = 1


def server_up(request: UpRequest) -> int:
    """Bring everything up and stay until Ctrl-C or SIGTERM.

    Raises:
        BadInputError: one runs already, the port is taken, or the pool is of another type.
        RunError: the server does not start, or the one that was named does not answer.
    """
    console = wide_console()
    console.print("loading Prefect …", highlight=False, style="dim")
    os.environ.update({name: os.environ.get(name, value) for name, value in PREFECT_SETTINGS.items()})
    office = office_here()
    from prefect import context

    with office.held():
        put_right(office)
        told = context.root_settings_context().settings.api.url
        meant = meant_server(request.api_url, told, request.host, request.port)
        worker = request.worker or platform.node() or "worker"
        standing = Standing(
            pid=os.getpid(),
            api_url=meant.api_url,
            own_server=meant.listener is not None,
            pool=request.pool,
            worker=worker,
            started_at=datetime.now(UTC),
        )
        server = _server(office, meant)
        if server is not None:
            forget_leases(office.home)
        watch = Watch(office, standing, server, _worker(office, standing, request.limit), console)
        try:
            asyncio.run(watch.run())
        finally:
            _end(watch, console)
            if meant.listener is not None:
                meant.listener.close()
    return 0


def _server(office: Office, meant: Meant) -> Child | None:
    if meant.listener is None:
        return None
    descriptor = meant.listener.fileno()
    host, port = meant.listener.getsockname()[:2]
    environment = LEASES_ON_DISK | {
        "PREFECT_SERVER_API_HOST": str(host),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_API_URL": meant.api_url,
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    command = [sys.executable, "-P", "-m", "flows.server", str(descriptor), "standing"]
    return Child("the server", command, office.folder / "server.log", environment, [descriptor])


def _worker(office: Office, standing: Standing, limit: int) -> Child:
    around = [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1"]
    no_proxy = ",".join(filter(None, around))
    environment = {
        "PREFECT_API_URL": standing.api_url,
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
        FOLDER_VARIABLE: str(office.ledger.folder),
        # The flow runs' command is `python …`: this one.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "no_proxy": no_proxy,
        "NO_PROXY": no_proxy,
    }
    names = [standing.pool, standing.worker, str(limit)]
    command = [sys.executable, "-m", "flows.deployments.worker", *names]
    return Child("the worker", command, office.folder / "worker.log", environment)


def _end(watch: Watch, console: Console) -> None:
    """End the worker with its flow runs first, so that they can still tell the server; then the server."""
    # Whoever presses Ctrl-C again would only leave processes behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    office = watch.office
    _say(console, "ending …")
    watch.worker.stop()
    # A worker that was killed has left its flow runs' processes behind; they are in the ledger.
    end_processes(living(entry.pid for entry, alive in office.ledger.entries() if alive))
    if watch.server is not None:
        watch.server.stop()
    put_right(office)
    _say(console, "ended; flow runs that were under way go on at the next `edgeloop server up`")


def _say(console: Console, text: str) -> None:
    # The terminal may be gone, which is why this ends.
    with contextlib.suppress(OSError):
        console.print(text, highlight=False, style="dim", soft_wrap=True)
