"""`edgeloop targets check`: whether a board can be reached, and computes and measures what it should."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench import stability
from device_bench.bench import Bench, LocalBench
from device_bench.client import Reach
from device_bench.errors import EdgeloopError, UntrustedAgentError
from device_bench.known_models import KNOWN_MODELS, check_known
from device_bench.local import describe
from device_bench.pinned import days_left
from device_bench.protocol import Failure, RuntimeName
from device_bench.screen import wide_console
from device_bench.wire import AgentInfo, RuntimeInfo
from flows.measuring.targets import device_from, known_device
from flows.measuring.waiting import Waiting
from pipeline.target_bench import agent_bench
from pipeline.target_book import LOCAL, Device, default_book

DONE, FAILED = 0, 3
_SOON_DAYS = 30
# A measurement's time of day may be off by this much without misleading anybody.
_CLOCK_SECONDS = 2.0


class Finding(NamedTuple):
    """One line of the table. `ok`: None is worth knowing, and no failure."""

    what: str
    found: str
    ok: bool | None = True


def check_target(name: str) -> int:
    """Check a device and show what was found.

    Returns:
        0 if all is well, 3 if something failed.

    Raises:
        BadInputError: there is no such device.
    """
    device = None if name == LOCAL else known_device(name)
    with Waiting(Console(stderr=True)) as waiting:
        findings = list(_local_findings(waiting) if device is None else _findings(device, waiting))
    table = Table(title=escape(name if device is None else f"{name}, {device.url}"), title_justify="left")
    for heading in ("what", "found", ""):
        table.add_column(heading)
    words = {True: "[green]ok[/green]", False: "[red]failed[/red]", None: "[yellow]note[/yellow]"}
    for finding in findings:
        table.add_row(escape(finding.what), escape(finding.found), words[finding.ok])
    wide_console().print(table)
    return FAILED if any(finding.ok is False for finding in findings) else DONE


def _findings(device: Device, waiting: Waiting) -> Iterator[Finding]:
    waiting.begin(f"asking {device.url}")
    bench = agent_bench(device.url, waiting.tell)
    try:
        certificate = default_book().credential(device.url).certificate
        yield _validity(days_left(device.url, certificate))
        reach = bench.reach()
    except EdgeloopError as error:
        yield Finding("certificate" if isinstance(error, UntrustedAgentError) else "agent", str(error), False)
        return
    default_book().update(device_from(device.name, device.url, reach.info))
    yield from _agent_findings(reach)
    yield from _state_findings(reach.info)
    yield from _runtime_findings(bench, reach.info.runtimes, waiting)


def _local_findings(waiting: Waiting) -> Iterator[Finding]:
    for advice in stability.advice():
        yield Finding("advice", advice, None)
    yield from _runtime_findings(LocalBench(), tuple(map(_runtime_here, RuntimeName)), waiting)


def _runtime_here(name: RuntimeName) -> RuntimeInfo:
    found = describe(name)
    if isinstance(found, Failure):
        return RuntimeInfo(runtime=name, version=None, note=found.message)
    return RuntimeInfo(runtime=name, version=found.version, accelerators=found.accelerators)


def _validity(days: float) -> Finding:
    if days < _SOON_DAYS:
        advice = "; make a new one soon: `device-bench init --force` on the board, then pair again"
        return Finding("certificate", f"valid for {days:.0f} more days{advice}", None)
    return Finding("certificate", f"the pinned one, valid for {days:.0f} more days")


def _agent_findings(reach: Reach) -> Iterator[Finding]:
    info, ours = reach.info, version("edgeloop")
    yield Finding("agent", f"answers in {reach.round_trip_seconds * 1e3:.1f} ms")
    same = info.agent_version == ours
    yield Finding(
        "version",
        info.agent_version + ("" if same else f", and here {ours}: update the older one"),
        True if same else None,
    )
    offset = reach.clock_offset_seconds
    if abs(offset) <= max(_CLOCK_SECONDS, reach.round_trip_seconds):
        yield Finding("clock", f"within {abs(offset):.2g} s of ours")
    else:
        side = "ahead of" if offset > 0 else "behind"
        yield Finding(
            "clock", f"{abs(offset):.0f} s {side} ours: set it, or its certificate may not count", None
        )
    yield Finding(
        "line", f"{info.queued} jobs wait, {info.queue_limit} may", True if not info.queued else None
    )


def _state_findings(info: AgentInfo) -> Iterator[Finding]:
    device = info.device
    kind = f"{device.cpu_model}, {device.cpu_count} cores, {device.machine}, {device.system}"
    if device.emulated:
        yield Finding("device", f"{kind}; emulated: its times are no latencies", None)
    else:
        yield Finding("device", kind)
    readings = {
        "governor": info.governor,
        "frequency": None if info.frequency_mhz is None else f"{info.frequency_mhz:.0f} MHz",
        "temperature": None if info.temperature_c is None else f"{info.temperature_c:.0f} °C",
        "load": None if info.load_1m is None else f"{info.load_1m:.2f}",
    }
    told = ", ".join(f"{name} {value}" for name, value in readings.items() if value is not None)
    yield Finding("state", told or "the board does not tell")
    for advice in info.advice:
        yield Finding("advice", advice, None)


def _runtime_findings(bench: Bench, runtimes: tuple[RuntimeInfo, ...], waiting: Waiting) -> Iterator[Finding]:
    """Each runtime, and whether it computes what the known models' answers say."""
    if all(info.version is None for info in runtimes):
        yield Finding("runtimes", "none; " + "; ".join(info.note for info in runtimes if info.note), False)
    for info in runtimes:
        name = info.runtime.value
        if info.version is None:
            yield Finding(name, info.note or "not installed", None)
            continue
        yield Finding(name, f"{info.version}; {', '.join(info.accelerators)}")
        for model in KNOWN_MODELS:
            if model.runtime is not info.runtime:
                continue
            waiting.begin(f"{model.file} on {name}")
            try:
                wrong = check_known(bench, model)
            except EdgeloopError as error:
                wrong = str(error)
            yield Finding(f"  {model.file}", wrong or "answers as it should", wrong is None)
