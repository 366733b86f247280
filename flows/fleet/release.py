"""`edgeloop release` and `edgeloop fleet withdraw`: what the fleet benchmark watches."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from device_bench.screen import wide_console
from flows.fleet.inventory import check_class
from flows.runs.folders import run_named
from pipeline.fleet.publishing import release_run
from pipeline.fleet.shelf import Shelf


def release_to_fleet(run: Path, name: str | None, device_class: str | None) -> int:
    """Put a finished run's chosen files on the shelf, as `release_run`, and show what they are.

    Raises:
        BadInputError: the run is not finished or missed its budget, a name cannot be used, or no board is of
            that class.
        RunError: the shelf cannot be written.
    """
    check_class(device_class)
    shelf, console = Shelf(), wide_console()
    for kept in release_run(shelf, run_named(run), datetime.now(UTC), name, device_class):
        text = f"{kept.name}: {kept.file_name}, {kept.bytes / 1024:.0f} KiB, {kept.metric} {kept.score:.2f}"
        console.print(text, highlight=False, markup=False)
    told = f"released at {shelf.url}; measure it with: edgeloop fleet bench"
    console.print(told, highlight=False, markup=False)
    return 0


def withdraw(name: str) -> int:
    """Take a release off the shelf; its history stays.

    Raises:
        BadInputError: there is none of that name; names the nearest.
    """
    count = Shelf().withdraw(name)
    wide_console().print(
        f"{name} is withdrawn; it had been released {count} {'time' if count == 1 else 'times'}",
        highlight=False,
        markup=False,
    )
    return 0
