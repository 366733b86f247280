"""Files that a reader sees whole or not at all, and locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from device_bench.errors import RunError

# What the user's umask leaves of these is a new file's mode.
_ANYBODY = 0o666
_OWNER = 0o600


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, then rename it into place; the folder is made where it is missing.

    Raises:
        RunError: the disk is full or the folder cannot be written; what was at `path` is still there.
    """
    with _in_words(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, content, _ANYBODY, durable=True)


def write_private(path: Path, content: bytes, durable: bool = True) -> None:
    """As `write_whole`, for its owner only and in a folder that is there.

    Args:
        durable: wait until it is on the disk, so that it outlives a loss of power.
    """
    _write(path, content, _OWNER, durable)


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`; it goes with the process at the latest.

    Raises:
        BlockingIOError: not `wait`, and another process holds it.
        RunError: the file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, _OWNER)
    except OSError as error:
        raise RunError(f"cannot open the lock {path}: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes, mode: int, durable: bool) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    with _in_words(path, content):
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _in_words(path: Path, content: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write {path} ({len(content)} bytes): {error.strerror or error}; free some space, or "
            "give a folder that you may write"
        ) from error
