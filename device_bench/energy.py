"""Energy of an inference, where the machine tells it: RAPL, INA3221 (Jetson), hwmon, NVML. Absent otherwise.

The samples of the latency are left alone: energy has a pass of its own, in which the meter is read between
inferences, so that no second thread takes time from the model.

Sources: Linux' Documentation/power/powercap/powercap.rst (energy in µJ, a range after which the counter
begins again) and Documentation/hwmon/sysfs-interface.rst (mV, mA, µW, µJ).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from device_bench import sensors
from device_bench.protocol import Energy

# Between two readings. Power gauges refresh every few ms to tens of ms.
_INTERVAL_NS = 20_000_000
_MICRO = 1e-6

# Sensors of other parts of a machine, or of all that hangs on its plug.
_NOT_THE_PROCESSOR = ("amdgpu", "nouveau", "i915", "xe", "nvme", "drivetemp", "corsairpsu")
# The rail that feeds all others, by the labels of NVIDIA's boards.
_WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "5V_IN", "VIN_SYS_5V0")


class Meter(Protocol):
    """Adds up energy from when it was made. It must be asked often enough to miss nothing."""

    @property
    def source(self) -> str:
        """Who tells it, for example "RAPL package-0"."""
        ...

    def joules(self, now_ns: int) -> float | None:
        """Energy so far; None if it could not be read."""
        ...


class Counter(NamedTuple):
    """A file that counts µJ, and after how many it begins again; None if it is not told."""

    path: Path
    range_uj: float | None


class CounterMeter:
    """The sum of counters, each of which may begin again once between two readings."""

    def __init__(self, source: str, counters: list[Counter]) -> None:
        self.source = source
        self._counters = counters
        self._last = [sensors.number(counter.path) for counter in counters]
        self._sum_uj = 0.0

    def joules(self, now_ns: int) -> float | None:
        """Energy so far. Of the time nothing is asked: a counter knows its own."""
        for i, counter in enumerate(self._counters):
            value, last = sensors.number(counter.path), self._last[i]
            if value is None or last is None:
                return None
            if value < last:
                if counter.range_uj is None:
                    return None
                last -= counter.range_uj
            self._sum_uj += value - last
            self._last[i] = value
        return self._sum_uj * _MICRO


class PowerMeter:
    """Power, integrated by the trapezoidal rule."""

    def __init__(self, source: str, watts: Callable[[], float | None], now_ns: int) -> None:
        self.source = source
        self._watts = watts
        self._last = (now_ns, watts())
        self._joules = 0.0

    def joules(self, now_ns: int) -> float | None:
        """Energy so far."""
        before_ns, before = self._last
        now = self._watts()
        if before is None or now is None:
            return None
        self._joules += (before + now) / 2 * (now_ns - before_ns) * 1e-9
        self._last = (now_ns, now)
        return self._joules


def find_meter(now_ns: int, root: Path = sensors.ROOT) -> Meter | None:
    """The best meter that can be read here, or None: RAPL, then INA3221, then another hwmon sensor."""
    for find in (_rapl, _ina3221, _hwmon_energy, _hwmon_power):
        meter = find(root, now_ns)
        if meter is not None and meter.joules(now_ns) is not None:
            return meter
    return None


def measure(
    run: Callable[[], object], meter: Meter, seconds: float, clock: Callable[[], int]
) -> Energy | None:
    """Run for that long, at least once, and divide the energy by the runs.

    What the machine draws at idle is part of it, and so is a reading of the meter every 20 ms.

    Returns:
        None where the meter stopped telling, or never moved.
    """
    begin = meter.joules(clock())
    start = clock()
    stop, next_reading = start + round(seconds * 1e9), start + _INTERVAL_NS
    runs = 0
    while True:
        run()
        runs += 1
        now = clock()
        if now >= next_reading or now >= stop:
            end = meter.joules(now)
            next_reading = now + _INTERVAL_NS
            if now >= stop:
                break
    if begin is None or end is None or end <= begin:
        return None
    return Energy(source=meter.source, mean_mj=1e3 * (end - begin) / runs)


def _rapl(root: Path, now_ns: int) -> Meter | None:
    """Every package and its memory. The other subdomains are parts of a package; psys is all of them."""
    names, counters = [], []
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        name = sensors.text(folder / "name") or ""
        if name.startswith("package") or name == "dram":
            names.append(name)
            counters.append(Counter(folder / "energy_uj", sensors.number(folder / "max_energy_range_uj")))
    return CounterMeter(f"RAPL {' + '.join(names)}", counters) if counters else None


def _hwmons(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = sensors.text(folder / "name")
        if name and name not in _NOT_THE_PROCESSOR and not name.startswith("BAT"):
            yield name, folder


def _ina3221(root: Path, now_ns: int) -> Meter | None:
    """Voltage times current of the rail that feeds the board, else of all rails."""
    rails: dict[str, tuple[Path, Path]] = {}
    for name, folder in _hwmons(root):
        if name == "ina3221":
            for channel in (1, 2, 3):
                volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
                if sensors.number(volts) is not None and sensors.number(amperes) is not None:
                    label = sensors.text(folder / f"in{channel}_label") or f"{folder.name}/{channel}"
                    rails[label] = (volts, amperes)
    chosen = [label for label in _WHOLE_BOARD if label in rails][:1] or list(rails)
    if not chosen:
        return None

    def watts() -> float | None:
        total = 0.0
        for volts, amperes in (rails[label] for label in chosen):
            millivolts, milliamperes = sensors.number(volts), sensors.number(amperes)
            if millivolts is None or milliamperes is None:
                return None
            total += millivolts * milliamperes * _MICRO
        return total

    return PowerMeter(f"INA3221 {' + '.join(chosen)}", watts, now_ns)


def _hwmon_energy(root: Path, now_ns: int) -> Meter | None:
    for name, folder in _hwmons(root):
        paths = sorted(folder.glob("energy*_input"))
        if paths:
            labels = {
                path: sensors.text(path.with_name(path.name.replace("_input", "_label"))) for path in paths
            }
            # amd_energy counts each core and, besides, the sockets that they are part of.
            sockets = [path for path in paths if (labels[path] or "").startswith("Esocket")]
            chosen = sockets or paths[:1]
            told = " + ".join(labels[path] or path.name.removesuffix("_input") for path in chosen)
            return CounterMeter(f"hwmon {name} {told}", [Counter(path, None) for path in chosen])
    return None


def _hwmon_power(root: Path, now_ns: int) -> Meter | None:
    for name, folder in _hwmons(root):
        for path in sorted(folder.glob("power*_input"))[:1]:
            return PowerMeter(
                f"hwmon {name} {path.name.removesuffix('_input')}", partial(_watts, path), now_ns
            )
    return None


def _watts(path: Path) -> float | None:
    microwatts = sensors.number(path)
    return None if microwatts is None else microwatts * _MICRO
