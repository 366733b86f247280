"""Whether a machine is fit for measuring right now, and what to do about it, in words.

What Linux does not tell gives no advice. Sources: Documentation/admin-guide/pm/cpufreq.rst, intel_pstate.rst;
Documentation/driver-api/thermal/sysfs-api.rst; Raspberry Pi's documentation of `get_throttled`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from device_bench import sensors

_CORES = "sys/devices/system/cpu"
# Degrees below the temperature at which the system slows the processor down.
_CLOSE_C = 5.0
# A machine is busy if something else is runnable at every one of these looks.
_LOOKS = 4
_LOOK_SECONDS = 0.003
# Above this many runnable processes a core, the last minute was too busy to start now.
_BUSY_LOAD = 0.5

# Bits of the firmware's word, those that hold now and those that held since the start.
_PI_WORDS = (
    (1 << 0, "its supply voltage is too low: use a stronger power supply"),
    (1 << 1, "its clock is capped"),
    (1 << 2, "it is throttled: cool it"),
    (1 << 3, "it is at its soft temperature limit: cool it"),
)


def advice(root: Path = sensors.ROOT) -> tuple[str, ...]:
    """What would make measurements on this machine steadier; empty where nothing is known to be amiss."""
    found = [_governor(root), _capped(root), _boost(root), *_heat(root), *_firmware(root), _load(root)]
    return tuple(note for note in found if note is not None)


def before_measuring(
    threads: int, root: Path = sensors.ROOT, sleep: Callable[[float], None] = time.sleep
) -> tuple[str, ...]:
    """What speaks against measuring with that many threads now. Takes about 10 ms; does not count itself."""
    cores = len(sensors.affinity()) or os.cpu_count() or 1
    notes = [note for note in advice(root) if not note.startswith("load")]
    if threads > cores:
        notes.append(
            f"{threads} threads share the {cores} core(s) that this process may use: ask for at most {cores}"
        )
    others = _others_running(root, sleep)
    everywhere = os.cpu_count() or 1
    if others and others + threads > everywhere:
        notes.append(
            f"{others} other process(es) ran all the time before it, on {everywhere} core(s): stop them, or "
            "trust only ratios of files that took turns"
        )
    return tuple(notes)


def throttle_count(root: Path = sensors.ROOT) -> int:
    """How often the processor has slowed itself down for heat since the system started."""
    names = ("core_throttle_count", "package_throttle_count")
    paths = (path for name in names for path in (root / _CORES).glob(f"cpu[0-9]*/thermal_throttle/{name}"))
    return sum(int(sensors.number(path) or 0) for path in paths)


def _governor(root: Path) -> str | None:
    found: dict[str, int] = {}
    for path in (root / _CORES).glob("cpu[0-9]*/cpufreq/scaling_governor"):
        name = sensors.text(path) or ""
        found[name] = found.get(name, 0) + 1
    slow = {name: count for name, count in found.items() if name not in ("", "performance")}
    if not slow:
        return None
    told = " and ".join(f"{name} on {count} core(s)" for name, count in sorted(slow.items()))
    return (
        f"governor is {told}: set performance with "
        "`echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`"
    )


def _capped(root: Path) -> str | None:
    for path in sorted((root / _CORES).glob("cpu[0-9]*/cpufreq")):
        limit, most = sensors.number(path / "scaling_max_freq"), sensors.number(path / "cpuinfo_max_freq")
        if limit is not None and most is not None and limit < most:
            return (
                f"clock is capped at {limit / 1e3:.0f} of {most / 1e3:.0f} MHz on {path.parent.name}: "
                "figures hold for that clock alone"
            )
    return None


def _boost(root: Path) -> str | None:
    no_turbo = sensors.number(root / _CORES / "intel_pstate/no_turbo")
    if no_turbo == 0:
        return (
            "turbo is on, so the clock follows the temperature: for steady figures "
            "`echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo`"
        )
    if sensors.number(root / _CORES / "cpufreq/boost") == 1:
        return (
            "boost is on, so the clock follows the temperature: for steady figures "
            "`echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost`"
        )
    return None


def _heat(root: Path) -> list[str]:
    notes = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        temperature, kind = sensors.number(zone / "temp"), sensors.text(zone / "type") or zone.name
        limits = [
            limit
            for trip in zone.glob("trip_point_*_type")
            if sensors.text(trip) == "passive"
            and (limit := sensors.number(trip.with_name(trip.name.replace("_type", "_temp")))) is not None
            and limit > 0
        ]
        if temperature is not None and limits and temperature > min(limits) - 1e3 * _CLOSE_C:
            notes.append(
                f"{kind} is at {temperature / 1e3:.0f} °C, and the clock is lowered from "
                f"{min(limits) / 1e3:.0f} °C: let it cool, or cool it"
            )
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        kind, state = sensors.text(device / "type") or "", sensors.number(device / "cur_state")
        if state and ("cpufreq" in kind or kind == "Processor"):
            most = sensors.number(device / "max_state") or state
            notes.append(
                f"the processor is throttled for heat ({kind} at {state:.0f} of {most:.0f}): cool it"
            )
    return notes


def _firmware(root: Path) -> list[str]:
    """Raspberry Pi: the firmware's word, as `vcgencmd get_throttled` prints it."""
    for path in sorted((root / "sys/devices/platform/soc").glob("soc:firmware/get_throttled")):
        try:
            word = int(sensors.text(path) or "0", 16)
        except ValueError:
            return []
        return [f"the board says that {told}" for bit, told in _PI_WORDS if word & bit]
    return []


def _load(root: Path) -> str | None:
    words = (sensors.text(root / "proc/loadavg") or "").split()
    cores = os.cpu_count() or 1
    if not words or float(words[0]) <= _BUSY_LOAD * cores:
        return None
    return f"load was {float(words[0]):.2g} over the last minute on {cores} core(s): see what else runs"


def _others_running(root: Path, sleep: Callable[[float], None]) -> int:
    """The fewest other processes or threads that were runnable at any of several looks."""
    fewest: int | None = None
    for _ in range(_LOOKS):
        lines = (sensors.text(root / "proc/stat") or "").splitlines()
        running = [int(line.split()[1]) for line in lines if line.startswith("procs_running")]
        if not running:
            return 0
        others = max(0, running[0] - 1)
        fewest = others if fewest is None else min(fewest, others)
        sleep(_LOOK_SECONDS)
    return fewest or 0
