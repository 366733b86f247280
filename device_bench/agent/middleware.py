"""What surrounds every request: a request id, one line in the log, a limit of bodies and of open requests."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from device_bench.agent.refusals import Refused
from device_bench.agent.settings import AgentLimits

_LOG = logging.getLogger("device_bench.agent.requests")

# A client may name its request, in letters that cannot forge a line of the log.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9-]{1,64}")
# What a refused client is told when there are too many requests at once.
_CROWDED_RETRY_SECONDS = 2.0


class Guard:
    """Counts, limits and logs requests. No header is ever logged: one of them is the token."""

    def __init__(self, app: ASGIApp, limits: AgentLimits) -> None:
        self._app = app
        self._limits = limits
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        started = time.monotonic()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        self._open += 1
        try:
            if self._open > self._limits.open_requests:
                crowded = Refused(
                    503,
                    "crowded",
                    f"more than {self._limits.open_requests} requests are open at once; come back later",
                    _CROWDED_RETRY_SECONDS,
                )
                await crowded.response()(scope, receive, answer)
            else:
                await self._app(scope, self._limited(scope, receive), answer)
        finally:
            self._open -= 1
            # %r: a path may hold line breaks, and must not forge a line of the log.
            # Clients ask for their jobs again and again, and monitors for the agent's health.
            routine = scope["method"] in ("GET", "HEAD") and 200 <= status < 300
            _LOG.log(
                logging.DEBUG if routine else logging.INFO,
                "%s %s %.200r %s %.1f ms",
                request_id,
                scope["method"],
                scope["path"],
                status or "cut off",
                (time.monotonic() - started) * 1e3,
            )

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Stops reading a body beyond the limit of JSON; uploads have their own limit."""
        if scope["path"].startswith("/v1/artifacts/"):
            return receive
        limit = self._limits.json_bytes
        got = 0

        async def receive_limited() -> Message:
            nonlocal got
            message = await receive()
            if message["type"] == "http.request":
                got += len(message.get("body", b""))
                if got > limit:
                    raise Refused(413, "too_large", f"a body of JSON may have at most {limit} bytes")
            return message

        return receive_limited


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return secrets.token_hex(8)
