"""Writing artifacts so that a reader sees a whole file or none."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pipeline.errors import ExportError


def write_atomically(path: Path, data: bytes | bytearray) -> None:
    """Write `data` beside `path` and rename it into place; the folder is made where it is missing.

    Raises:
        ExportError: the folder cannot be written or the disk is full; names the path.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; an artifact is read like any other file.
        os.chmod(temporary, 0o644)  # noqa: PTH101 -- the name came from mkstemp as a string
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise ExportError(
            f"cannot write {path} ({len(data)} bytes): {error.strerror or error}; "
            "free some space or choose a folder that can be written"
        ) from error
