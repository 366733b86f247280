"""The folder of one run: one process at a time, nothing half written."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from device_bench.errors import BadInputError, RunError
from device_bench.storage import write_whole

JOB_FILE = "job.json"
# Who only looks whether the folder is held, holds it for an instant.
TRIES = 20


class RunFolder:
    """`runs/<id>/`, with a lock that the operating system drops when its holder dies.

    Args:
        path: the run's folder; made by `create`, found by `existing`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @classmethod
    def create(cls, parent: Path, label: str) -> RunFolder:
        """A new folder below `parent`, named by the time and `label`.

        Raises:
            RunError: the folder cannot be made (no permission, full disk).
        """
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
            path = parent / f"{stamp}-{label}{suffix}"
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise RunError(
                    f"cannot make the run folder {path}: {error.strerror}; give --out a folder you may write"
                ) from error
            return cls(path)
        raise RunError(
            f"a thousand runs named {stamp}-{label} are in {parent} already; try again in a second"
        )

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of an earlier run.

        Raises:
            BadInputError: there is no run in it.
        """
        if not (path / JOB_FILE).is_file():
            raise BadInputError(
                f"{path} holds no run (no {JOB_FILE}); --resume takes a folder such as runs/<id>"
            )
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            BadInputError: another process holds it.
            RunError: the folder cannot be written.
        """
        try:
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise RunError(
                f"cannot write in the run folder {self.path}: {error.strerror}; make it writable"
            ) from error
        with lock as file:
            for attempt in range(TRIES):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if attempt == TRIES - 1:
                        raise BadInputError(
                            f"another process is at work in {self.path}; wait for it, or start a new run "
                            "without --resume"
                        ) from None
                    time.sleep(0.02)
            yield

    @property
    def at_work(self) -> bool:
        """True while a process holds the folder."""
        try:
            with (self.path / ".lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            # No lock, or one that is not ours to read: nobody of ours is at it.
            return False
        return False

    def file(self, *parts: str) -> Path:
        """A path in the folder whose parent exists."""
        path = self.path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, record: BaseModel) -> Path:
        """Store a record as JSON, whole or not at all.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        path = self.path / name
        try:
            write_whole(path, record.model_dump_json(indent=2).encode() + b"\n")
        except RunError as error:
            raise RunError(f"{error}; then go on with --resume {self.path}") from error
        return path
