"""`edgeloop fleet add`, `remove`, `status` and `accept`."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from rich.console import Console

from device_bench.errors import BadInputError, EdgeloopError, unknown_name
from device_bench.screen import wide_console
from device_bench.sensors import device_info
from flows.fleet.tables import show_devices
from flows.measuring.targets import add_target, device_from
from flows.measuring.waiting import Waiting
from pipeline.database import default_store
from pipeline.fleet.history import Acceptance, Watched
from pipeline.fleet.history_store import HistoryStore
from pipeline.fleet.rounds import local_station
from pipeline.fleet.status import DeviceStatus, with_history
from pipeline.target_bench import agent_bench
from pipeline.target_book import LOCAL, Device, default_book

DONE, SOMETHING_WRONG = 0, 1
LOST_SECONDS = 5.0
# Boards are asked side by side; answers of a thousand take as long as those of a few dozen slow ones.
ASKED_AT_ONCE = 32


def add_device(name: str, url: str, pair: str, device_class: str | None) -> int:
    """Pair with a board and put it into a class.

    Raises:
        BadInputError: the name, class, address or line cannot be used, or the agent is another one.
        UnreachableError: nobody answers there.
    """
    done = add_target(name, url, pair, device_class)
    if device_class is not None:
        wide_console().print(f"{name} is of class {device_class}", highlight=False, markup=False)
    return done


def show_status(*, as_json: bool) -> int:
    """Every device: whether it answers, what is watched there, what got worse.

    Returns:
        0, or 1 if a device does not answer or a figure got worse.
    """
    devices = list(default_book().devices().values())
    with Waiting(Console(stderr=True)) as waiting:
        waiting.begin("asking every board")
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            found = [_this_machine(), *pool.map(_asked, devices)]
        with HistoryStore(default_store()) as history:
            found = [with_history(one, history) for one in found]
    if as_json:
        sys.stdout.write(json.dumps([one.model_dump(mode="json") for one in found], indent=2) + "\n")
    else:
        show_devices(wide_console(), found)
    return SOMETHING_WRONG if any(one.problem is not None or one.worse for one in found) else DONE


def accept_level(release: str, device: str, note: str) -> int:
    """Let the history of a release on a device begin anew.

    Raises:
        BadInputError: it was never measured there; names the nearest.
    """
    with HistoryStore(default_store()) as history:
        watched = _watched(history, release, device)
        for one in watched:
            history.accept(Acceptance(watched=one, accepted_at=datetime.now(UTC), note=note))
    wide_console().print(
        f"{release} on {device}: what was measured before now no longer counts", highlight=False, markup=False
    )
    return DONE


def _watched(history: HistoryStore, release: str, device: str) -> list[Watched]:
    known = history.watched()
    if device not in {one.device for one in known}:
        raise unknown_name("device with a history", device, sorted({one.device for one in known}))
    found = [one for one in known if (one.release, one.device) == (release, device)]
    if not found:
        there = sorted({one.release for one in known if one.device == device})
        raise unknown_name(f"release measured on {device}", release, there)
    return found


def _this_machine() -> DeviceStatus:
    info, station = device_info(), local_station()
    return DeviceStatus(
        device=LOCAL,
        device_class=None,
        processor=f"{info.cpu_count} × {info.cpu_model}",
        runtimes=station.runtimes,
        emulated=info.emulated,
    )


def _asked(device: Device) -> DeviceStatus:
    """What a board says now; what it said last where it does not answer."""
    problem = None
    try:
        info = agent_bench(device.url, lost_seconds=LOST_SECONDS).reach().info
        device = device_from(device.name, device.url, info, device.device_class)
        default_book().update(device)
    except EdgeloopError as error:
        problem = str(error)
    if problem is None and not device.installed:
        problem = "it has no runtime; install one there"
    return DeviceStatus(
        device=device.name,
        device_class=device.device_class,
        processor=f"{device.device.cpu_count} × {device.device.cpu_model}",
        runtimes=device.installed,
        emulated=device.device.emulated,
        problem=problem,
    )


def check_class(device_class: str | None) -> None:
    """Make sure that a class is known.

    Raises:
        BadInputError: no board is of that class; names the nearest.
    """
    known = sorted({one.device_class for one in default_book().devices().values() if one.device_class})
    if device_class is not None and device_class not in known:
        if not known:
            raise BadInputError(
                f"no board is of class {device_class}; add one with `edgeloop fleet add NAME URL --class "
                f"{device_class} --pair …`"
            )
        raise unknown_name("class", device_class, known)
