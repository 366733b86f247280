"""The last station of a run that met its budget: what it made goes on the shelf, for the fleet benchmark."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

from device_bench.errors import BadInputError, RunError
from pipeline.fleet.publishing import release_run
from pipeline.fleet.shelf import Shelf
from pipeline.progress import reporter


def release_station(folder: Path) -> tuple[str, ...]:
    """Release a finished run's files; their names. A shelf out of reach is noted, and the run stays whole."""
    try:
        shelf = Shelf()
        before = {release.name: release.run_id for release in shelf.history()}
        found = release_run(shelf, folder, datetime.now(UTC))
    except (BadInputError, RunError) as error:
        command = f"edgeloop release {shlex.quote(str(folder))}"
        reporter().note(f"the files are not released: {error}; once that is mended: {command}")
        return ()
    names = tuple(release.name for release in found)
    told = ", ".join(
        name
        if before.get(name) in (None, folder.name)
        else f"{name} (in place of the file of {before[name]})"
        for name in names
    )
    reporter().note(f"released as {told}; `edgeloop fleet bench` watches what is released")
    return names
