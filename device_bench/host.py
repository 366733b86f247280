"""This machine as a place to measure: what it is, which runtimes it has, how it fares, what would help."""

from __future__ import annotations

from device_bench import sensors, stability
from device_bench.commands import Library
from device_bench.local import describe
from device_bench.protocol import DeviceInfo, Record, RuntimeName
from device_bench.wire import RuntimeInfo


class HostInfo(Record):
    """What `device-bench info --json` prints. Absent readings are None."""

    device: DeviceInfo
    runtimes: tuple[RuntimeInfo, ...]
    governor: str | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    load_1m: float | None = None
    advice: tuple[str, ...] = ()


def host_info() -> HostInfo:
    """Look at this machine. Imports each runtime in a process of its own, which takes seconds for torch."""
    advice = stability.advice()
    return HostInfo(
        device=sensors.device_info(),
        governor=sensors.governor(),
        frequency_mhz=sensors.frequency_mhz(),
        temperature_c=sensors.temperature_c(),
        load_1m=sensors.load_1m(),
        advice=advice,
        runtimes=tuple(_runtime(name) for name in RuntimeName),
    )


def _runtime(name: RuntimeName) -> RuntimeInfo:
    found = describe(name)
    if isinstance(found, Library):
        return RuntimeInfo(runtime=name, version=found.version, accelerators=found.accelerators)
    return RuntimeInfo(runtime=name, version=None, note=found.message)
