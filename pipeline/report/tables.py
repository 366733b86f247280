"""The report's tables: measurements, conditions, units, trials and stages, as rows of ready text."""

from __future__ import annotations

from dataclasses import dataclass

from device_bench.protocol import Conditions
from pipeline.report import wording
from pipeline.report.pareto import is_drawable
from pipeline.result import Entry, RunResult, UnitRow


@dataclass(frozen=True)
class MeasurementRow:
    """One artifact on one target. `flags` must not be overlooked; `warnings` stand under the table."""

    kind: str
    form: str
    score: str
    p50: str
    p50_interval: str
    p90: str
    memory: str
    size: str
    agreement: str
    max_error: str
    flags: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ConditionsRow:
    """How one measurement was made; a reading that the machine did not give is an em dash.

    `started` is to the minute, in the time zone of the record.
    """

    form: str
    runtime: str
    threads: str
    governor: str
    frequency: str
    temperature: str
    load: str
    operators: str
    device: str
    started: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Width:
    """What is left of one unit on one target. `time`: its measured share of plain INT8's latency there."""

    target: str
    kept: int
    percent: float
    removed: bool
    time: str


@dataclass(frozen=True)
class UnitLine:
    """One unit of the per-unit plan."""

    name: str
    layers: str
    width: int
    macs: str
    widths: tuple[Width, ...]


@dataclass(frozen=True)
class TrialRow:
    """One trial with its latency on each target."""

    number: int
    plan_id: str
    origin: str
    score: str
    latencies: tuple[str, ...]
    recovered: bool
    failure: str
    chosen_for: tuple[str, ...]


@dataclass(frozen=True)
class StageRow:
    """Seconds of one stage and its share of all stages."""

    name: str
    text: str
    percent: float


def measurement_rows(result: RunResult) -> dict[str, list[MeasurementRow]]:
    """Every artifact that was measured, by target: float, plain INT8, chosen."""
    return {
        target: [_measurement(result, kind, entry) for kind, entry in wording.forms(outcome).items()]
        for target, outcome in result.targets.items()
    }


def _measurement(result: RunResult, kind: str, entry: Entry) -> MeasurementRow:
    parity = entry.parity
    agreement = max_error = "—"
    if parity is not None:
        max_error = wording.significant(parity.max_error, 2)
        if parity.top1_agreement is not None:
            agreement = f"{parity.top1_agreement:.2f} %"
    flags = [] if entry.settled else ["did not settle"]
    if entry.conditions.device.emulated:
        flags.append("emulated")
    if entry.float_operators:
        flags.append(f"stayed float: {', '.join(entry.float_operators)}")
    return MeasurementRow(
        kind=kind,
        form=wording.FORM_NAMES[kind],
        score=wording.score(entry.accuracy, result),
        p50=wording.significant(entry.p50_ms),
        p50_interval=wording.interval(entry.p50_low_ms, entry.p50_high_ms),
        p90=wording.significant(entry.p90_ms),
        memory=wording.bytes_text(entry.peak_memory_bytes),
        size=wording.bytes_text(entry.artifact_bytes),
        agreement=agreement,
        max_error=max_error,
        flags=tuple(flags),
        warnings=entry.warnings,
    )


def conditions_rows(result: RunResult) -> dict[str, list[ConditionsRow]]:
    """How each of `measurement_rows` was measured, in the same order."""
    return {
        target: [
            _conditions(wording.FORM_NAMES[kind], entry.conditions, entry.settled)
            for kind, entry in wording.forms(outcome).items()
        ]
        for target, outcome in result.targets.items()
    }


def _conditions(form: str, seen: Conditions, settled: bool) -> ConditionsRow:
    def given(value: float | str | None, text: str) -> str:
        return "—" if value is None else text.format(value)

    delegated, undelegated = seen.delegated_operators, seen.undelegated_operators
    device = seen.device
    flags = ["emulated"] if device.emulated else []
    return ConditionsRow(
        form=form,
        runtime=f"{_runtime(seen)} ({seen.accelerator})",
        threads=str(seen.threads) + (f" on CPU {_numbers(seen.affinity)}" if seen.affinity else ""),
        governor=given(seen.governor, "{}"),
        frequency=given(seen.frequency_mhz, "{:.0f} MHz"),
        temperature=given(seen.temperature_c, "{:.0f} °C"),
        load=given(seen.load_1m, "{:.2f}"),
        operators="—" if delegated is None or undelegated is None else f"{delegated} / {undelegated}",
        device=device.hostname,
        started=seen.started_at[:16].replace("T", " ") or "—",
        flags=tuple(flags if settled else [*flags, "did not settle"]),
    )


def _runtime(seen: Conditions) -> str:
    """A version that names the library it came through, as LiteRT's does, needs no second name."""
    name = seen.runtime.value
    return seen.runtime_version if name in seen.runtime_version else f"{name} {seen.runtime_version}"


def _numbers(values: tuple[int, ...]) -> str:
    """CPU numbers with runs drawn together: 0–3, 6."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def device_lines(result: RunResult) -> tuple[str, ...]:
    """One line for each device that was measured on: what it is and what its processor can do."""
    entries = [entry for outcome in result.targets.values() for entry in wording.forms(outcome).values()]
    devices = {entry.conditions.device.hostname: entry.conditions.device for entry in entries}
    lines = []
    for device in devices.values():
        parts = [
            device.cpu_model,
            wording.counted(device.cpu_count, "core"),
            device.machine,
            device.system,
            f"{wording.bytes_text(device.memory_bytes)} of memory",
        ]
        lines.append(
            f"{device.hostname}: {', '.join(parts)}; instruction sets: {', '.join(device.isa) or '—'}"
        )
    return tuple(lines)


def unit_lines(result: RunResult) -> tuple[UnitLine, ...]:
    """Units in forward order with what each target's chosen plan leaves of them."""
    return tuple(
        UnitLine(
            name=unit.name,
            layers=", ".join(unit.layers),
            width=unit.width,
            macs=f"{100 * unit.macs_share:.1f} %",
            widths=tuple(_width(result, unit, target) for target in result.targets),
        )
        for unit in result.units
    )


def _width(result: RunResult, unit: UnitRow, target: str) -> Width:
    """A unit whose layers all lie in removed blocks is gone, whatever width the plan gives it."""
    blocks = result.removed.get(target, ())
    gone = bool(unit.layers) and all(
        any(layer == block or layer.startswith(f"{block}.") for block in blocks) for layer in unit.layers
    )
    kept = 0 if gone else unit.widths.get(target, unit.width)
    share = unit.latency_shares.get(target)
    time = "—" if share is None else f"{100 * share:.1f} %"
    return Width(target, kept, round(100 * kept / unit.width, 1), removed=kept == 0, time=time)


def trial_rows(result: RunResult) -> tuple[TrialRow, ...]:
    """Every trial in the order of its number, the failed ones with their reason."""
    return tuple(
        TrialRow(
            number=point.number,
            plan_id=point.plan_id,
            origin=point.origin or "—",
            score="—" if point.failure else wording.score(point.accuracy, result),
            latencies=tuple(
                wording.significant(point.latency_ms[target]) if is_drawable(point, target) else "—"
                for target in result.targets
            ),
            recovered=point.recovered,
            failure=point.failure or "",
            chosen_for=tuple(
                target for target, outcome in result.targets.items() if outcome.plan_id == point.plan_id
            ),
        )
        for point in sorted(result.points, key=lambda point: point.number)
    )


def stage_rows(result: RunResult) -> tuple[StageRow, ...]:
    """Stages in the order in which they ran."""
    widest = max(result.seconds_by_stage.values(), default=0.0) or 1.0
    return tuple(
        StageRow(name, wording.duration(seconds), round(100 * seconds / widest, 1))
        for name, seconds in result.seconds_by_stage.items()
    )
