"""Files that a reader sees whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from device_bench.errors import RunError


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, then rename it into place; the folder is made where it is missing.

    Raises:
        RunError: the disk is full or the folder cannot be written; what was at `path` is still there.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path} ({len(content)} bytes): {error.strerror or error}; free some space, or "
            "give a folder you may write"
        ) from error
