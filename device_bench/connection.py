"""Requests to one agent that outlast lost connections and busy boards.

Every request of `device_bench.wire` may be sent twice without harm, so what got lost is simply sent again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Protocol

import httpx
from pydantic import Field, ValidationError

from device_bench.errors import BadInputError, RefusedError, UnreachableError
from device_bench.pinned import distrust, pinned_context
from device_bench.protocol import Record
from device_bench.wire import Refusal

_LOG = logging.getLogger(__name__)

# What may pass when it is sent again: an upload that stalled, a mistake, a proxy whose agent restarts.
_STUMBLED = (408, 500, 502, 504)
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_LONGEST_RETRY_AFTER_SECONDS = 120.0
# After a restart an agent checks a stored file's hash before it answers for it.
_READ_SECONDS = 60.0
_TIMEOUT = httpx.Timeout(connect=10.0, read=_READ_SECONDS, write=30.0, pool=10.0)
_CHUNK_BYTES = 1 << 20


class Body(Protocol):
    """What a request carries; its pieces can be made anew for each attempt."""

    @property
    def headers(self) -> dict[str, str]:
        """Type and, for a file, length."""
        ...

    def pieces(self) -> bytes | Iterable[bytes]:
        """The content."""
        ...


class JsonBody(NamedTuple):
    """A record."""

    record: Record

    @property
    def headers(self) -> dict[str, str]:
        """JSON."""
        return {"Content-Type": "application/json"}

    def pieces(self) -> bytes:
        """All of it."""
        return self.record.model_dump_json().encode()


class FileBody(NamedTuple):
    """A file, read piece by piece. `size`: its bytes when it was hashed."""

    path: Path
    size: int

    @property
    def headers(self) -> dict[str, str]:
        """Bytes, and how many: an agent that has no room for them says so before they are sent."""
        return {"Content-Type": "application/octet-stream", "Content-Length": str(self.size)}

    def pieces(self) -> Iterator[bytes]:
        """The file as it is now.

        Raises:
            BadInputError: it is shorter than it was; one that is longer, or another, has another hash.
        """
        left = self.size
        with self.path.open("rb") as file:
            while left and (piece := file.read(min(left, _CHUNK_BYTES))):
                left -= len(piece)
                yield piece
        if left:
            raise BadInputError(f"{self.path} changed while it was uploaded; wait until it is whole")


@dataclass(frozen=True)
class AgentAddress:
    """Where an agent is and how to know it. `certificate`: PEM. The token is a secret."""

    url: str
    token: str = field(repr=False)
    certificate: str = field(repr=False)


class Patience(Record):
    """How long to go on trying.

    `lost_seconds`: with an agent that does not answer at all; `busy_seconds`: with one that refuses for want
    of room; `poll_seconds`: how long one question for a job may wait at the agent. An agent gives a job up
    whose client is silent for its lease (30 s), so to poll more seldom than that loses jobs.
    """

    lost_seconds: float = Field(default=60.0, ge=0)
    busy_seconds: float = Field(default=1800.0, ge=0)
    poll_seconds: float = Field(default=15.0, gt=0)


def _keep_silent(text: str) -> None:
    _LOG.debug("%s", text)


@dataclass(frozen=True)
class Means:
    """What a connection works with; a test puts its own in place.

    `tell` hears, in words, what is being waited for. `chance` draws from [0, 1).
    """

    tell: Callable[[str], None] = _keep_silent
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    transport: httpx.BaseTransport | None = None


class Connection:
    """A context manager; leaving it closes the connection."""

    def __init__(self, address: AgentAddress, patience: Patience, means: Means) -> None:
        self._url = address.url
        self._patience = patience
        self._means = means
        self._client = httpx.Client(
            base_url=address.url,
            headers={"Authorization": f"Bearer {address.token}"},
            timeout=_TIMEOUT,
            verify=pinned_context(address.certificate),
            transport=means.transport,
            # No proxy, no .netrc: the token goes to the agent and to nobody else.
            trust_env=False,
            follow_redirects=False,
        )

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        seconds: float = 0.0,
        allowed: Sequence[int] = (),
    ) -> httpx.Response:
        """Send a request until it is answered.

        Args:
            body: the content, if there is one.
            seconds: how long the agent itself may wait before it answers.
            allowed: refusals that the caller wants to see.

        Returns:
            A response below 300 or with an allowed status, read whole.

        Raises:
            RefusedError: the agent refuses, in its words.
            UntrustedAgentError: it is another agent than the one that was paired with.
            UnreachableError: it did not answer, or was busy, for longer than the patience lasts.
        """

        def attempt() -> httpx.Response:
            headers, content = ({}, None) if body is None else (body.headers, body.pieces())
            timeout = httpx.Timeout(**_TIMEOUT.as_dict() | {"read": _READ_SECONDS + seconds})
            return self._client.request(method, path, content=content, headers=headers, timeout=timeout)

        return self._insist(attempt, allowed)

    def download(self, path: str, into: BinaryIO, allowed: Sequence[int] = ()) -> httpx.Response:
        """Fetch content piece by piece; what was in `into` is gone. Otherwise as `send`."""

        def attempt() -> httpx.Response:
            into.seek(0)
            into.truncate()
            with self._client.stream("GET", path, timeout=_TIMEOUT) as response:
                if response.is_success:
                    for chunk in response.iter_bytes(_CHUNK_BYTES):
                        into.write(chunk)
                else:
                    response.read()
                return response

        return self._insist(attempt, allowed)

    def try_once(self, method: str, path: str) -> None:
        """Send a request without waiting long for it or caring for its fate."""
        try:
            self._client.request(method, path, timeout=3.0)
        except httpx.TransportError as error:
            _LOG.debug("%s %s got lost: %s", method, path, error)

    def _insist(self, attempt: Callable[[], httpx.Response], allowed: Sequence[int]) -> httpx.Response:
        trouble = _Trouble(self._url, self._patience, self._means)
        while True:
            try:
                response = attempt()
            except httpx.TransportError as error:
                untrusted = distrust(self._url, error)
                if untrusted is not None:
                    raise untrusted from error
                trouble.lost(f"{type(error).__name__}: {error}".rstrip(": "))
                continue
            status = response.status_code
            if response.is_success or status in allowed:
                return response
            refusal = _refusal(response)
            if status == 429:
                trouble.busy(refusal.message, _retry_after(response), self._patience.busy_seconds)
            elif status == 503:
                # The board itself is in trouble, or stops: that passes soon, or not by itself.
                trouble.busy(refusal.message, _retry_after(response), self._patience.lost_seconds)
            elif status in _STUMBLED:
                trouble.lost(f"HTTP {status}: {refusal.message}")
            else:
                message = f"{self._url} refuses: {refusal.message}"
                if status == 401:
                    message += "; then pair again with `edgeloop targets add`"
                raise RefusedError(status, refusal.code, message)


_REASONS = {
    401: "the token is not known there, or has expired or was revoked",
    403: "the token may not do this; `device-bench token add --scope measure` on the board makes another",
}


class _Trouble:
    """How long one request has been in trouble, and what to do about it: pause, or give up."""

    def __init__(self, url: str, patience: Patience, means: Means) -> None:
        self._url = url
        self._patience = patience
        self._means = means
        self._lost_at: float | None = None
        self._busy_at: float | None = None
        self._pause = _FIRST_PAUSE_SECONDS

    def lost(self, why: str) -> None:
        """No answer."""
        self._busy_at = None
        now = self._means.clock()
        if self._lost_at is None:
            self._lost_at, self._pause = now, _FIRST_PAUSE_SECONDS
        if now - self._lost_at >= self._patience.lost_seconds:
            raise UnreachableError(
                f"no answer from {self._url} for {now - self._lost_at:.0f} s ({why}); is "
                "`device-bench serve` running there, and is the network up?"
            )
        self._means.tell(f"no answer from {self._url} ({why}); trying again")
        self._means.sleep(self._pause * (0.5 + self._means.chance() / 2))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def busy(self, why: str, seconds: float, at_most: float) -> None:
        """Told to come back later; that may go on for `at_most` seconds."""
        self._lost_at = None
        now = self._means.clock()
        if self._busy_at is None:
            self._busy_at = now
        if now - self._busy_at >= at_most:
            raise UnreachableError(
                f"{self._url} had no room for {now - self._busy_at:.0f} s ({why}); try again later"
            )
        self._means.tell(f"the board is busy ({why}); asking again in {seconds:.0f} s")
        # Never earlier than told; a little later, so that all who were refused do not come back at once.
        self._means.sleep(seconds * (1 + self._means.chance() / 4))


def _refusal(response: httpx.Response) -> Refusal:
    try:
        return Refusal.model_validate_json(response.content)
    except ValidationError:
        # Somebody between us and the agent, or no agent at all.
        text = " ".join(response.text.split())[:200]
        # A HEAD request is refused without words.
        text = text or _REASONS.get(response.status_code, response.reason_phrase)
        return Refusal(code="unknown", message=f"HTTP {response.status_code} {text}")


def _retry_after(response: httpx.Response) -> float:
    """Seconds until a refused client may come back: a number of seconds or a date (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            seconds = 1.0
    # A number that is none, too, becomes the least.
    return min(seconds, _LONGEST_RETRY_AFTER_SECONDS) if seconds > 1.0 else 1.0
