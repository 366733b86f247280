"""Which flow runs are at work on this machine: a file each, locked by the run's process while it lives.

A file whose lock is free belongs to a process that ended. Whether its run ended too, Prefect's server knows.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from device_bench.protocol import Record
from device_bench.storage import write_whole

# Where a worker tells the processes of its flow runs to sign in.
FOLDER_VARIABLE = "EDGELOOP_FLOW_RUNS"
TRIES = 40


class LedgerEntry(Record):
    """One flow run at work, or whose process ended and that nobody looked after yet.

    Args:
        pid: of its process, the one that holds the lock.
        deaths: how often it was started again because its process had ended under a watching server.
        told_to_end: its process was asked to end, with the command that held it. A failure told after that is
            none of the run's: asked in the midst of a task's start, Prefect takes it for one.
    """

    flow_run_id: str
    pid: int = Field(ge=1)
    deaths: int = Field(default=0, ge=0)
    told_to_end: bool = False


class Ledger:
    """The entries in one folder, which may not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def signed_in(self, flow_run_id: str) -> Iterator[None]:
        """Stand in the ledger within the block, and after it until `strike`.

        Raises:
            BlockingIOError: another process is at work on this flow run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # Child processes are started afresh, so none of them inherits the lock.
        with self._lock(flow_run_id).open("w") as lock:
            _take(lock.fileno())
            known = self._read(flow_run_id)
            deaths = known.deaths if known is not None else 0
            self._write(LedgerEntry(flow_run_id=flow_run_id, pid=os.getpid(), deaths=deaths))
            yield

    def entries(self) -> list[tuple[LedgerEntry, bool]]:
        """Every entry, and whether its process lives."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            entry = self._read(path.stem)
            if entry is not None:
                found.append((entry, self._is_locked(entry.flow_run_id)))
        return found

    def count_death(self, entry: LedgerEntry) -> None:
        """The run's process ended before the run did."""
        self._write(entry.model_copy(update={"deaths": entry.deaths + 1}))

    def note_ending(self, pids: Collection[int]) -> None:
        """These processes are about to be asked to end."""
        for entry, _ in self.entries():
            if entry.pid in pids:
                self._write(entry.model_copy(update={"told_to_end": True}))

    def strike(self, flow_run_id: str) -> None:
        """Nobody needs to look after this flow run any more."""
        self._path(flow_run_id).unlink(missing_ok=True)
        self._lock(flow_run_id).unlink(missing_ok=True)

    def _is_locked(self, flow_run_id: str) -> bool:
        try:
            with self._lock(flow_run_id).open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _read(self, flow_run_id: str) -> LedgerEntry | None:
        try:
            return LedgerEntry.model_validate_json(self._path(flow_run_id).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            # Entries are written whole: this one is of another version, whose runs that version looks after.
            return None

    def _write(self, entry: LedgerEntry) -> None:
        write_whole(self._path(entry.flow_run_id), entry.model_dump_json().encode())

    def _path(self, flow_run_id: str) -> Path:
        return self.folder / f"{flow_run_id}.json"

    def _lock(self, flow_run_id: str) -> Path:
        return self.folder / f"{flow_run_id}.lock"


def _take(descriptor: int) -> None:
    """Lock the file, past those who only look whether it is locked."""
    for attempt in range(TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if attempt == TRIES - 1:
                raise
            time.sleep(0.05)
