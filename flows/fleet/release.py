"""`edgeloop release` and `edgeloop fleet withdraw`: what the fleet benchmark watches."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from device_bench.errors import BadInputError
from flows.fleet.inventory import check_class
from pipeline.fleet.release import releases_of
from pipeline.fleet.shelf import Shelf


def release_run(run: Path, name: str | None, device_class: str | None) -> int:
    """Put a finished run's chosen files on the shelf.

    Args:
        name: what it is called; model, data and target where none is given.
        device_class: the devices that it is meant for; all with its runtime where none is given.

    Raises:
        BadInputError: the run is not finished or missed its budget, or one name is given for several files.
        RunError: the shelf cannot be written.
    """
    check_class(device_class)
    shelf = Shelf()
    found = releases_of(run, datetime.now(UTC), device_class)
    if name is not None and len(found) > 1:
        targets = ", ".join(release.target for release in found.values())
        raise BadInputError(
            f"run {run.name} made files for {targets}; one --name cannot be that of all: leave it out"
        )
    console = Console()
    for path, release in found.items():
        kept = shelf.put(release if name is None else release.model_copy(update={"name": name}), path)
        text = f"{kept.name}: {kept.file_name}, {kept.bytes / 1024:.0f} KiB, {kept.metric} {kept.score:.2f}"
        console.print(text, highlight=False, markup=False)
    console.print(
        f"released at {shelf.url}; measure it with: edgeloop fleet bench", highlight=False, markup=False
    )
    return 0


def withdraw(name: str) -> int:
    """Take a release off the shelf; its history stays.

    Raises:
        BadInputError: there is none of that name; names the nearest.
    """
    count = Shelf().withdraw(name)
    Console().print(f"{name} is withdrawn ({count} released in all)", highlight=False, markup=False)
    return 0
