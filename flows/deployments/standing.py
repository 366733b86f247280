"""The `edgeloop server up` of this user on this machine: at most one, and where it can be reached."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from device_bench.errors import BadInputError, MissingExtraError
from device_bench.protocol import Record
from device_bench.storage import locked, write_whole
from flows.deployments.ledger import Ledger


class Standing(Record):
    """One `server up` at work.

    Args:
        pid: of the command.
        api_url: of the Prefect server it works with.
        own_server: whether it started that server.
        pool: the work pool.
        worker: what its worker is called.
        profile_before: the active Prefect profile that it stands in for; None where it left profiles alone.
    """

    pid: int
    api_url: str
    own_server: bool
    pool: str
    worker: str
    started_at: datetime
    profile_before: str | None = None


def office_here() -> Office:
    """The office in this user's Prefect home.

    Raises:
        MissingExtraError: Prefect is not installed.
    """
    try:
        from prefect.settings import PREFECT_HOME
    except ImportError as error:
        raise MissingExtraError("prefect", "pipeline") from error
    return Office(Path(PREFECT_HOME.value()))


class Office:
    """The folder of a standing server: its record, its lock, its logs and its ledger.

    Args:
        home: Prefect's own folder (PREFECT_HOME).
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "edgeloop"
        self.ledger = Ledger(self.folder / "flow-runs")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the one `server up` within the block.

        Raises:
            BadInputError: another one runs; says where.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self._lock, wait=False):
                yield
        except BlockingIOError:
            found = self.record()
            where = "" if found is None else f" (process {found.pid}, {found.api_url})"
            raise BadInputError(
                f"`edgeloop server up` runs already{where}; see `edgeloop server status`, or end that one "
                "with Ctrl-C first"
            ) from None

    @property
    def is_held(self) -> bool:
        """True while a `server up` runs."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def record(self) -> Standing | None:
        """What the last `server up` wrote of itself, unless it took its leave."""
        try:
            return Standing.model_validate_json(self._record.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def write(self, standing: Standing) -> None:
        """Say where this one can be reached."""
        write_whole(self._record, standing.model_dump_json(indent=2).encode() + b"\n")

    def leave(self) -> None:
        """Take the record away."""
        self._record.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        return self.folder / "server.lock"

    @property
    def _record(self) -> Path:
        return self.folder / "server.json"
