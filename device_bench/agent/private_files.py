"""Files that a reader sees whole or not at all, and that only their owner may read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from device_bench.errors import RunError


def write_private(path: Path, content: bytes, durable: bool = True) -> None:
    """Write `content` beside `path` with mode 0600, then rename it into place.

    Args:
        durable: wait until it is on the disk, so that it outlives a loss of power.

    Raises:
        RunError: it cannot be written; what was at `path` is still there.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path} ({len(content)} bytes): {error.strerror or error}; free some space, or "
            "give a folder that you may write"
        ) from error


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`; it goes with the process at the latest.

    Raises:
        BlockingIOError: not `wait`, and another process holds it.
        RunError: the file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise RunError(f"cannot open the lock {path}: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
