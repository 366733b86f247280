"""From a finished run to the shelf."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from device_bench.errors import BadInputError
from pipeline.fleet.release import Release, releases_of
from pipeline.fleet.shelf import Shelf


def release_run(
    shelf: Shelf, run: Path, now: datetime, name: str | None = None, device_class: str | None = None
) -> tuple[Release, ...]:
    """Put what a run made for the targets that met its budget on the shelf, once however often it is called.

    Args:
        run: the run's folder.
        now: the time of what is released now; what this run has released before keeps its own.
        name: what it is called; model, data and target where none is given.
        device_class: the devices that it is meant for; all with its runtime where none is given.

    Raises:
        BadInputError: nothing of the run can be released, or one name is given for several files.
        RunError: the shelf cannot be reached or written.
    """
    found = releases_of(run, now, device_class)
    if name is not None and len(found) > 1:
        targets = ", ".join(release.target for release in found.values())
        raise BadInputError(
            f"run {run.name} made files for {targets}; one --name cannot be that of all: leave it out"
        )
    known = {_identity(one): one for one in shelf.history()}
    kept = []
    for path, release in found.items():
        wanted = release if name is None else renamed(release, name)
        before = known.get(_identity(wanted))
        kept.append(shelf.put(wanted, path) if before is None else before)
    return tuple(kept)


def renamed(release: Release, name: str) -> Release:
    """The same under another name.

    Raises:
        BadInputError: nothing can be called that.
    """
    try:
        return Release.model_validate({**release.model_dump(), "name": name})
    except ValidationError as error:
        raise BadInputError(
            "a release's name must be 1 to 127 lower-case letters, digits, '.', '_' or '-', and begin with "
            f"a letter or digit; got {name!r}"
        ) from error


def _identity(release: Release) -> tuple[str, str, str, str | None]:
    return release.name, release.run_id, release.sha256, release.device_class
