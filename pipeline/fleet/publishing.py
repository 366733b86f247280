"""From a finished run to the shelf."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pipeline.fleet.release import Release, releases_of
from pipeline.fleet.shelf import Shelf


def release_run(shelf: Shelf, run: Path, now: datetime) -> tuple[Release, ...]:
    """Put what a run made for the targets that met its budget on the shelf, once however often it is called.

    Args:
        run: the run's folder.
        now: the time of what is released now; what this run has released before keeps its own.

    Raises:
        BadInputError: nothing of the run can be released.
        RunError: the shelf cannot be reached or written.
    """
    known = {(one.name, one.run_id, one.sha256): one for one in shelf.history()}
    kept = []
    for path, found in releases_of(run, now).items():
        before = known.get((found.name, found.run_id, found.sha256))
        kept.append(shelf.put(found, path) if before is None else before)
    return tuple(kept)
