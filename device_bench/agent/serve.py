"""Puts an agent together and serves it over TLS until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from device_bench.agent.about import Board
from device_bench.agent.app import Agent, create_app
from device_bench.agent.artifacts import ArtifactStore
from device_bench.agent.certificate import check_pair, fingerprint
from device_bench.agent.execution import LocalRunner
from device_bench.agent.jobs import JobQueue
from device_bench.agent.ledger import Ledger
from device_bench.agent.settings import AgentLimits, StateFolder
from device_bench.agent.tokens import Tokens
from device_bench.errors import BadInputError
from device_bench.storage import locked

_LOG = logging.getLogger("device_bench.agent")

# A client keeps its connection between two questions about a long job.
_KEEP_ALIVE_SECONDS = 75
# Enough for a killed child to be reaped and for the last answers to leave.
_GRACE_SECONDS = 10
_GOODBYE_SECONDS = 1.0


@dataclass(frozen=True)
class Place:
    """Where an agent listens, and the certificate and key that it shows (PEM files)."""

    host: str
    port: int
    certificate: Path
    key: Path


def build_agent(state: StateFolder, limits: AgentLimits) -> Agent:
    """Open what an agent keeps in its folder.

    Raises:
        RunError: something there cannot be read or written.
    """
    store = ArtifactStore(state.artifacts, limits.artifact_bytes, limits.cache_bytes)
    store.open()
    ledger = Ledger(state.jobs, limits.kept_outcomes, limits.kept_outcome_bytes)
    lost = ledger.open()
    if lost:
        _LOG.warning("%d job(s) of an earlier run were not done: they have failed as agent_restarted", lost)
    runner = LocalRunner(store, state.path / "work", limits)
    runner.open()
    tokens = Tokens(state.tokens, time.time)
    tokens.list()
    queue = JobQueue(ledger, runner, limits, time.monotonic)
    return Agent(limits=limits, tokens=tokens, store=store, queue=queue, board=Board())


def serve(state: StateFolder, place: Place, limits: AgentLimits) -> None:
    """Serve until SIGTERM or SIGINT; then every open job ends as `agent_restarted`.

    Raises:
        BadInputError: the certificate and key do not serve, the address is taken, or another agent serves
            from this folder.
        RunError: the folder cannot be read or written.
    """
    check_pair(place.certificate, place.key)
    state.make()
    try:
        with locked(state.lock, wait=False), _listening(place) as listener:
            asyncio.run(_serve(build_agent(state, limits), place, listener))
    except BlockingIOError as error:
        raise BadInputError(
            f"another agent serves from {state.path}; stop it, or give this one its own --state"
        ) from error


async def _serve(agent: Agent, place: Place, listener: socket.socket) -> None:
    config = uvicorn.Config(
        create_app(agent),
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=str(place.certificate),
        ssl_keyfile=str(place.key),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    config.load()
    assert config.ssl is not None
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    host, port = listener.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    _LOG.info("serving on https://%s:%d, fingerprint %s", where, port, fingerprint(place.certificate))
    await _Server(config, agent).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends the jobs before it waits for the requests that wait for them."""

    def __init__(self, config: uvicorn.Config, agent: Agent) -> None:
        super().__init__(config)
        self._agent = agent

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop gracefully."""
        self._agent.queue.close()
        await self._agent.queue.idle()
        hanging_up = asyncio.create_task(self._hang_up())
        try:
            await super().shutdown(sockets)
        finally:
            hanging_up.cancel()

    async def _hang_up(self) -> None:
        """Do not wait for idle clients to say goodbye: TLS would, for half a minute."""
        await asyncio.sleep(_GOODBYE_SECONDS)
        for connection in list(self.server_state.connections):
            if connection.transport.is_closing():
                connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Without raising the signal again at the end: to be told to stop is no failure."""
        before = {kind: signal.signal(kind, self.handle_exit) for kind in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


@contextlib.contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0][0]
        # asyncio sends small answers at once (TCP_NODELAY) only where the protocol is named.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise BadInputError(f"{place.host!r} is no address of this machine: {error}") from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((place.host, place.port))
            # Who comes as soon as the address is logged waits until the service is up.
            listener.listen()
        except (OSError, OverflowError) as error:
            raise BadInputError(
                f"cannot listen on {place.host} port {place.port}: {error}; give another --host or --port"
            ) from error
        yield listener


def log_to_stderr(verbose: bool) -> None:
    """One line an event on standard error, without times: the journal and the container add their own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("device_bench").setLevel(logging.DEBUG if verbose else logging.INFO)
