"""`edgeloop fleet bench`: a round of the fleet benchmark by hand."""

from __future__ import annotations

import os
import shlex
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from device_bench.errors import BadInputError, unknown_name
from device_bench.screen import wide_console
from flows.compression.start import prepare_prefect
from flows.fleet.tables import show_round
from flows.interrupts import CtrlC
from flows.screen import Screen
from pipeline.database import default_store
from pipeline.fleet.rounds import Station, local_station
from pipeline.fleet.shelf import Shelf, default_url
from pipeline.progress import current_reporter
from pipeline.target_book import LOCAL, default_book

if TYPE_CHECKING:
    from flows.fleet.benchmark import FleetOrder

DONE, WORSE, NOTHING_MEASURED = 0, 1, 3


def stations(names: tuple[str, ...]) -> tuple[Station, ...]:
    """The devices of these names or classes; every known one and this machine where none are given.

    Raises:
        BadInputError: a name is not known; names the nearest.
    """
    known = {LOCAL: local_station()}
    known |= {device.name: Station.of(device) for device in default_book().devices().values()}
    if not names:
        return tuple(known.values())
    classes = {one.device_class for one in known.values() if one.device_class is not None}
    found: dict[str, Station] = {}
    for name in names:
        if name not in known and name not in classes:
            raise unknown_name("device", name, [*known, *sorted(classes)])
        found |= {one.name: one for one in known.values() if name in (one.name, one.device_class)}
    return tuple(found.values())


def order_of(names: tuple[str, ...], artifacts: str | None, store: str | None, round_id: str) -> FleetOrder:
    """What a round is made of, from what somebody asked for.

    Raises:
        BadInputError: a device is not known, or nothing is released.
    """
    from flows.fleet.benchmark import FleetOrder

    shelf = artifacts or default_url()
    if not Shelf(shelf).releases():
        raise BadInputError(
            f"nothing is released at {shelf}; release what a finished run made with `edgeloop release RUN`"
        )
    return FleetOrder(stations(names), shelf, store or default_store(), round_id)


def bench_fleet(names: tuple[str, ...], round_id: str | None, *, as_json: bool) -> int:
    """Make a round, show it, and say by the exit code whether anything got worse.

    Raises:
        BadInputError: a device is not known, or nothing is released.
    """
    name = round_id or f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    stations(names)
    console = wide_console(stderr=as_json)
    with Screen(console) as screen:
        token = current_reporter.set(screen)
        try:
            screen.stage("start", 1)
            screen.advance(0, "loading Prefect")
            server = prepare_prefect()
            from flows.fleet.benchmark import fleet_benchmark_flow

            if server is not None:
                server.wait_ready()
            with CtrlC():
                result = fleet_benchmark_flow(order_of(names, None, None, name))
        except BadInputError:
            raise
        except BaseException as error:
            command = shlex.join(["edgeloop", "fleet", "bench", *_options(names), "--round", name])
            error.add_note(f"what was measured is kept; go on with: {command}")
            raise
        finally:
            current_reporter.reset(token)
    if as_json:
        sys.stdout.write(result.model_dump_json(indent=2) + os.linesep)
    show_round(console, result)
    if result.visits == 0:
        return NOTHING_MEASURED
    return WORSE if result.regressions else DONE


def _options(names: tuple[str, ...]) -> list[str]:
    return [word for name in names for word in ("--device", name)]
