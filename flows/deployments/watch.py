"""What `edgeloop server up` does while it stands: holds its children, tells what runs, revives the lost."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import httpx
from rich.console import Console

from device_bench.errors import RunError
from flows.deployments.announcements import Announcements
from flows.deployments.children import Child
from flows.deployments.leases import free_devices
from flows.deployments.pool import (
    deployed_flows,
    ensure_pool,
    pool_state,
    recent_runs,
    worker_is_online,
)
from flows.deployments.profile import point_profile
from flows.deployments.revival import Reviver
from flows.deployments.standing import Office, Standing

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

START_SECONDS = 180.0
LOOK_SECONDS = 2.0
# A child that ends so often within so many seconds will not stay by being started once more.
MOST_STARTS, WITHIN_SECONDS = 5, 120.0


class Watch:
    """Children, and what is told of them.

    Args:
        office: where the standing server keeps its papers.
        standing: what it is.
        server: None where the server is the user's own.
        worker: this machine's worker.
        console: where it is told.
    """

    def __init__(
        self, office: Office, standing: Standing, server: Child | None, worker: Child, console: Console
    ) -> None:
        self.office = office
        self.server = server
        self.worker = worker
        self._standing = standing
        self._say = Announcements(console)
        self._reviver = Reviver(office.ledger, standing.pool, standing.worker)
        self._stop = asyncio.Event()
        self._starts: dict[str, list[float]] = {}

    async def run(self) -> None:
        """Bring up and stay until Ctrl-C, SIGTERM, or the terminal's end.

        Raises:
            RunError: a child does not start, or does not stay.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        # By way of the package: it is what completes the types of Prefect's client.
        from prefect import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: self._standing.api_url}):
            if self.server is not None:
                self._start(self.server)
                await self._until(self._healthy, self.server)
            if self._stop.is_set():
                return
            async with get_client() as client:
                await self._open(client)
                # Beside each other: a call that was under way when the server was killed stays unanswered
                # until a new one stands, since this process holds the socket that both listen on.
                telling = asyncio.create_task(self._tell(client))
                try:
                    await self._hold(telling)
                finally:
                    telling.cancel()
                    await asyncio.wait([telling])

    async def _open(self, client: PrefectClient) -> None:
        """Pool, runs of the server before, worker, and the screen's head."""
        made = await ensure_pool(client, self._standing.pool)
        for one in await self._reviver.look(client, watched=False):
            self._say.revival(one)
        if self.server is not None:
            for name in await free_devices(client):
                self._say.line(f"{name} was held when the server before ended: it is free", "yellow")
            before = point_profile(self._standing.api_url)
            self._standing = self._standing.model_copy(update={"profile_before": before})
        self.office.write(self._standing)
        self._start(self.worker)

        async def online() -> bool:
            return await worker_is_online(client, self._standing.pool, self._standing.worker)

        await self._until(online, self.worker)
        if not self._stop.is_set():
            self._say.head(self._standing, pool_is_new=made)

    async def _hold(self, telling: asyncio.Task[None]) -> None:
        """Start again what ended, until it is time to end.

        Raises:
            RunError: a child does not stay.
        """
        while not await self._stopped(LOOK_SECONDS):
            for child in (self.server, self.worker):
                if child is not None and not child.alive:
                    self._say.line(
                        f"{child.name} ended ({child.how_it_ended()}); it is started again", "yellow"
                    )
                    self._start(child)
            if telling.done():
                telling.result()

    async def _tell(self, client: PrefectClient) -> None:
        """Say what runs, and revive what was lost, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._say.runs(await recent_runs(client, self._standing.pool))
                self._say.deployments(await deployed_flows(client, self._standing.pool))
                self._say.pool(await pool_state(client, self._standing.pool))
                for one in await self._reviver.look(client, watched=True):
                    self._say.revival(one)
                self._say.complaint("")
            except httpx.HTTPError as error:
                self._say.complaint(f"the server does not answer ({type(error).__name__}); trying again")
            except Exception as error:
                # Whatever an answer looks like, the server and the worker stay: flow runs hang on them.
                self._say.complaint(f"the server's answer is not understood ({error!r}); trying again")

    def _start(self, child: Child) -> None:
        now = time.monotonic()
        starts = [moment for moment in self._starts.get(child.name, []) if now - moment < WITHIN_SECONDS]
        if len(starts) == MOST_STARTS:
            raise RunError(
                f"{child.name} does not stay: {child.how_it_ended()}; all it said is in {child.log}"
            )
        self._starts[child.name] = [*starts, now]
        child.start()

    async def _until(self, ready: Callable[[], Awaitable[bool]], child: Child) -> None:
        """Wait until the child is ready, or Ctrl-C."""
        deadline = time.monotonic() + START_SECONDS
        while not self._stop.is_set() and not await ready():
            if not child.alive or time.monotonic() > deadline:
                raise RunError(
                    f"{child.name} did not start: {child.how_it_ended()}; all it said is in {child.log}"
                )
            await self._stopped(0.2)

    async def _stopped(self, seconds: float) -> bool:
        """Wait for so long at most; True if it is time to end."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _healthy(self) -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            try:
                return (await client.get(f"{self._standing.api_url}/health")).status_code == 200
            except httpx.TransportError:
                return False
