"""Measurements and comparisons as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.protocol import Comparison, Conditions, Failure, Measurement


def show_outcomes(console: Console, artifact: Path, outcomes: Mapping[str, Measurement | Failure]) -> None:
    """One line a target: latency, memory, conditions, and what to know about them."""
    headings = ["p50 ms", "95 % interval", "p90 ms", "p99 ms", "peak MiB", "file KiB"]
    table = _table(str(artifact), outcomes, headings)
    for name, outcome in outcomes.items():
        if isinstance(outcome, Failure):
            table.add_row(name, f"[red]{outcome.kind}[/red]")
            continue
        latency, memory = outcome.latency, outcome.memory
        cells = [
            f"{_ms(latency.p50_ms)}",
            f"{_ms(latency.p50_low_ms)}–{_ms(latency.p50_high_ms)}",
            f"{_ms(latency.p90_ms)}",
            f"{_ms(latency.p99_ms)}",
            f"{memory.peak_bytes / 2**20:.1f}",
            f"{memory.file_bytes / 2**10:.0f}",
        ]
        marks = [] if outcome.settled else ["did not settle"]
        table.add_row(_marked(name, outcome.conditions, marks), *cells)
    console.print(table)
    for name, outcome in outcomes.items():
        if isinstance(outcome, Measurement):
            console.print(f"{name}: {_besides(outcome)}", highlight=False, markup=False, style="dim")
    _show_notes(console, outcomes)


def show_comparisons(
    console: Console, first: Path, second: Path, outcomes: Mapping[str, Comparison | Failure]
) -> None:
    """One line a target: which of the two files is faster, and by how much."""
    names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    title = f"{names[0]} (first) against {names[1]} (second), interleaved"
    table = _table(title, outcomes, ["first ms", "second ms", "ratio", "95 % interval"])
    table.add_column("in words")
    for name, outcome in outcomes.items():
        if isinstance(outcome, Failure):
            table.add_row(name, f"[red]{outcome.kind}[/red]")
            continue
        table.add_row(
            _marked(name, outcome.conditions, []),
            f"{_ms(outcome.first.p50_ms)}",
            f"{_ms(outcome.second.p50_ms)}",
            f"{outcome.speedup:.3f}",
            f"{outcome.low:.3f}–{outcome.high:.3f}",
            escape(verdict(outcome, *names)),
        )
    console.print(table)
    _show_notes(console, outcomes)


def verdict(comparison: Comparison, first: str, second: str) -> str:
    """Which of two files is faster, in words."""
    if comparison.low <= 1 <= comparison.high:
        return "cannot be told apart"
    if comparison.speedup > 1:
        return f"{second} is {comparison.speedup:.2f}× as fast"
    return f"{first} is {1 / comparison.speedup:.2f}× as fast"


def _table(title: str, names: Iterable[str], headings: Sequence[str]) -> Table:
    """Without lines between columns, so that a terminal of 80 characters shows all figures whole."""
    table = Table(
        title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0)
    )
    table.add_column("target", min_width=max(len(name) for name in names))
    for heading in headings:
        table.add_column(escape(heading), justify="right")
    return table


def _ms(value: float) -> str:
    return f"{value:.4f}" if value >= 0.1 else f"{value:.3g}"


def _marked(name: str, conditions: Conditions, marks: list[str]) -> str:
    """A target's name with what must not be overlooked."""
    marks = [*marks, *["emulated"] * conditions.device.emulated]
    return f"{name} ({', '.join(marks)})" if marks else name


def _besides(measurement: Measurement) -> str:
    """How it was run, and what only some devices tell."""
    parts = [_used(measurement.conditions)]
    if measurement.energy is not None:
        parts.append(f"{measurement.energy.mean_mj:.3g} mJ an inference, by {measurement.energy.source}")
    if measurement.instructions is not None:
        parts.append(f"{measurement.instructions:,} instructions an inference")
    return "; ".join(parts)


def _used(conditions: Conditions) -> str:
    accelerator = "" if conditions.accelerator == "cpu" else f" on {conditions.accelerator}"
    return f"{conditions.runtime} {conditions.runtime_version}{accelerator}, {conditions.threads} thread(s)"


def _show_notes(console: Console, outcomes: Mapping[str, Measurement | Comparison | Failure]) -> None:
    for name, outcome in outcomes.items():
        notes = (outcome.message,) if isinstance(outcome, Failure) else outcome.warnings
        for note in notes:
            console.print(f"{name}: {note}", highlight=False, markup=False)
