"""Where results are printed, and a measurement or a machine as a table there."""

from __future__ import annotations

import os

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.host import HostInfo
from device_bench.protocol import Conditions, Measurement

_ABSENT = "not told"
# A pipe and a file have no width: tables are as wide there as they need to be, up to this.
PIPE_WIDTH = 240


def wide_console(*, stderr: bool = False) -> Console:
    """A console that is as wide as the terminal; in a pipe or a file nothing is cut or folded at 80 columns.

    `COLUMNS` in the environment says otherwise, as everywhere.
    """
    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def show_measurement(title: str, measurement: Measurement, console: Console | None = None) -> None:
    """Print latency, the three memory figures, the conditions and every warning."""
    console = console or wide_console()
    latency, memory = measurement.latency, measurement.memory
    table = _table(title)
    table.add_row("p50", f"{latency.p50_ms:.4g} ms  ({latency.p50_low_ms:.4g} to {latency.p50_high_ms:.4g})")
    table.add_row("p90", f"{latency.p90_ms:.4g} ms")
    table.add_row("p99", f"{latency.p99_ms:.4g} ms")
    table.add_row("samples", f"{latency.samples}" + ("" if measurement.settled else "  (did not settle)"))
    table.add_row("peak memory", _size(memory.peak_bytes))
    table.add_row("arena", _ABSENT if memory.arena_bytes is None else _size(memory.arena_bytes))
    table.add_row("file", _size(memory.file_bytes))
    if memory.device_bytes is not None:
        table.add_row("device memory", _size(memory.device_bytes))
    if measurement.energy is not None:
        energy = measurement.energy
        table.add_row("energy", f"{energy.mean_mj:.4g} mJ an inference, by {energy.source}")
    if measurement.instructions is not None:
        table.add_row("an inference", f"{measurement.instructions:,} instructions")
    for name, value in _condition_rows(measurement.conditions):
        table.add_row(name, value)
    console.print(table)
    if measurement.conditions.device.emulated:
        console.print("emulated: these times are no latencies", style="yellow")
    for warning in measurement.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)


def show_host(host: HostInfo, console: Console | None = None) -> None:
    """Print what a machine is, what it can run, and the advice about it."""
    console = console or wide_console()
    device = host.device
    table = _table(device.hostname)
    table.add_row("processor", f"{device.cpu_model}, {device.cpu_count} cores")
    table.add_row(
        "machine", f"{device.machine}, {device.system}" + (" (emulated)" if device.emulated else "")
    )
    table.add_row("memory", _size(device.memory_bytes))
    table.add_row("instructions", " ".join(device.isa) or _ABSENT)
    table.add_row("governor", host.governor or _ABSENT)
    table.add_row("frequency", _reading(host.frequency_mhz, "MHz"))
    table.add_row("temperature", _reading(host.temperature_c, "°C"))
    table.add_row("load", _reading(host.load_1m, ""))
    for runtime in host.runtimes:
        if runtime.version is None:
            table.add_row(runtime.runtime.value, escape(runtime.note))
        else:
            table.add_row(runtime.runtime.value, f"{runtime.version} on {', '.join(runtime.accelerators)}")
    console.print(table)
    for note in host.advice:
        console.print(f"advice: {note}", style="yellow", markup=False, highlight=False)


def _table(title: str) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    return table


def _size(size: int) -> str:
    amount, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.4g} {unit}"


def _condition_rows(conditions: Conditions) -> list[tuple[str, str]]:
    rows = [
        (
            "runtime",
            f"{conditions.runtime.value} {conditions.runtime_version} on {conditions.accelerator}, "
            f"{conditions.threads} thread(s)",
        ),
        ("processor", conditions.device.cpu_model),
        ("instructions", " ".join(conditions.device.isa) or _ABSENT),
        ("governor", conditions.governor or _ABSENT),
        ("frequency", _reading(conditions.frequency_mhz, "MHz")),
        ("temperature", _reading(conditions.temperature_c, "°C")),
        ("load", _reading(conditions.load_1m, "")),
    ]
    if conditions.affinity:
        rows.append(("cores", " ".join(map(str, conditions.affinity))))
    isolated = {
        True: "away",
        False: "within reach: the system does not let it be taken away",
        None: "allowed",
    }
    rows.append(("network", isolated[conditions.network_isolated]))
    if conditions.delegated_operators is not None and conditions.undelegated_operators is not None:
        counts = f"{conditions.delegated_operators} delegated, {conditions.undelegated_operators} not"
        rows.append(("operators", counts))
    return rows


def _reading(value: float | None, unit: str) -> str:
    return _ABSENT if value is None else f"{value:.4g} {unit}".rstrip()
