"""The folder in which what is dear to make, decoded pictures or features, is kept between runs."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`EDGELOOP_CACHE`, `$XDG_CACHE_HOME/edgeloop` or `~/.cache/edgeloop`, the first that is given.

    It may not exist yet, and may not be writable.
    """
    given, caches = os.environ.get("EDGELOOP_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given)
    return (Path(caches) if caches else Path.home() / ".cache") / "edgeloop"


def cached_array(source: Path, kind: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What `make` gives, from the cache where it was made before from the same file.

    A cached array belongs to the source's path, size and time of change. It is mapped, not read, so that
    a process pays only for what it touches. Where the folder cannot be written, nothing is cached.

    Args:
        source: the file that `make` reads.
        kind: what is made of it; a new way of making needs a new kind.
        make: reads `source` and gives the array.
    """
    state = source.stat()
    identity = f"{source.resolve()}|{state.st_size}|{state.st_mtime_ns}|{kind}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path = cache_folder() / f"{source.stem}-{kind}-{key}.npy"
    if path.exists():
        try:
            stored: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
            return stored
        except (OSError, ValueError, EOFError) as error:
            logger.warning("the cached %s cannot be read (%s); it is made again", path, error)
    array = make()
    _store(path, array)
    return array


def _store(path: Path, array: np.ndarray) -> None:
    """Write beside and rename, so that a reader never meets half a file."""
    partial = path.with_suffix(f".{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        logger.warning("%s cannot be written (%s); set EDGELOOP_CACHE to a writable folder", path, error)
