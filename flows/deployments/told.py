"""Which Prefect server is meant: the user's own, or one that is started here."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from device_bench.errors import BadInputError, RunError

DEFAULT_PORT = 4200
BACKLOG = 128
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Meant:
    """The server to work with.

    Args:
        api_url: where its API is, or will be.
        listener: the socket that a server started here shall serve; None for the user's own.
    """

    api_url: str
    listener: socket.socket | None


def meant_server(given: str | None, told: str | None, host: str, port: int | None) -> Meant:
    """Decide on the server, and take the port of one that is to be started here.

    Args:
        given: on the command line.
        told: what Prefect is told of, by PREFECT_API_URL or its profile.
        host: interface for a server started here.
        port: its port, 0 for a free one; None for the one told of, or else 4200.

    Raises:
        BadInputError: the port is taken.
        RunError: the server does not answer.
    """
    if given is not None or (told is not None and _answers(told)):
        url = (given or told or "").rstrip("/")
        if not _answers(url):
            raise RunError(
                f"no Prefect server answers at {url}; start it, or leave --api-url out to start one here"
            )
        return Meant(url, None)
    if told is not None and urlsplit(told).hostname not in LOOPBACK:
        raise RunError(
            f"Prefect is told to use {told}, which does not answer; start that server, or choose another by "
            "--api-url, or start one here after `prefect config unset PREFECT_API_URL`"
        )
    if port is None:
        port = (urlsplit(told).port if told is not None else None) or DEFAULT_PORT
    listener = _listen(host, port)
    reachable = "127.0.0.1" if host in {"0.0.0.0", "::"} else host
    return Meant(f"http://{reachable}:{listener.getsockname()[1]}/api", listener)


def _answers(api_url: str) -> bool:
    try:
        trust = urlsplit(api_url).hostname not in LOOPBACK
        return (
            httpx.get(f"{api_url.rstrip('/')}/health", timeout=ANSWER_SECONDS, trust_env=trust).status_code
            < 500
        )
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _listen(host: str, port: int) -> socket.socket:
    """Held by this process for as long as it lives: who connects while the server is started again, waits."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise BadInputError(
            f"cannot serve on {host}:{port}: {error.strerror}; give --port another number, or 0 for any"
        ) from error
    return listener
