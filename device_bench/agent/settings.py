"""Where an agent keeps its things, and what it allows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from device_bench.errors import BadInputError
from device_bench.protocol import Record


class AgentLimits(Record):
    """What clients may use. Requests that ask for more are cut down to it.

    `lease_seconds`: a job whose client does not ask for it that long is given up.
    `job_seconds`: the longest that one job may run, whatever it is made of.
    `wall_seconds`, `cpu_seconds`: for one question to the measuring process.
    `memory_bytes`: its address space; None sets no limit.
    `stall_seconds`: an upload that brings nothing for that long is dropped.
    """

    artifact_bytes: int = Field(default=512 << 20, gt=0)
    cache_bytes: int = Field(default=4 << 30, gt=0)
    json_bytes: int = Field(default=64 << 10, gt=0)
    queue: int = Field(default=32, ge=1)
    lease_seconds: float = Field(default=30.0, gt=0)
    job_seconds: float = Field(default=900.0, gt=0)
    wall_seconds: float = Field(default=300.0, gt=0)
    cpu_seconds: int = Field(default=1200, gt=0)
    memory_bytes: int | None = Field(default=None, gt=0)
    kept_outcomes: int = Field(default=500, ge=1)
    kept_outcome_bytes: int = Field(default=64 << 20, ge=1)
    open_requests: int = Field(default=512, ge=1)
    stall_seconds: float = Field(default=30.0, gt=0)

    @property
    def longest_wait_seconds(self) -> float:
        """How long one long poll may last: well within the lease that its arrival renewed."""
        return self.lease_seconds * 2 / 3


@dataclass(frozen=True)
class StateFolder:
    """The files of one agent."""

    path: Path

    @property
    def certificate(self) -> Path:
        """The certificate, PEM."""
        return self.path / "certificate.pem"

    @property
    def key(self) -> Path:
        """The private key, PEM, for its owner's eyes only."""
        return self.path / "key.pem"

    @property
    def tokens(self) -> Path:
        """Digests of the tokens."""
        return self.path / "tokens.json"

    @property
    def artifacts(self) -> Path:
        """Uploaded files by hash."""
        return self.path / "artifacts"

    @property
    def jobs(self) -> Path:
        """One file a job."""
        return self.path / "jobs"

    @property
    def lock(self) -> Path:
        """Held by the agent that serves from here."""
        return self.path / "serving.lock"

    def make(self) -> None:
        """Make the folder, for its owner alone.

        Raises:
            BadInputError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise BadInputError(
                f"cannot make the folder {self.path}: {error.strerror or error}; "
                "give one that you may write with --state"
            ) from error


def default_state() -> Path:
    """`$XDG_STATE_HOME/device-bench`, or `~/.local/state/device-bench`."""
    given = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a path that is not absolute is to be ignored.
    base = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    return base / "device-bench"
