"""The table at the end of a run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.report.wording import counted
from pipeline.result import Entry, RunResult, TargetResult


def show_result(console: Console, result: RunResult, folder: Path) -> None:
    """A table of float, plain INT8 and chosen for each target, the verdict, and the files."""
    console.print()
    for name, found in result.targets.items():
        console.print(_table(name, found, result.metric))
    if result.budget_met:
        console.print("[green]budget met[/green] on every target")
    for name, found in result.targets.items():
        for miss in found.misses:
            console.print(f"[yellow]budget missed[/yellow] on {name}: {escape(miss)}")
    for name, reason in result.lost.items():
        told = f"{name} went away: {reason}; once it answers, `edgeloop compress --resume {folder}` adds it"
        console.print(f"[yellow]not measured[/yellow] {escape(told)}", soft_wrap=True)
    summary = f"{counted(result.trials, 'trial')} in {result.seconds:.0f} s; files in {folder}:"
    console.print(summary, highlight=False, soft_wrap=True, markup=False)
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        console.print(f"  {path.name}", highlight=False)


def _table(name: str, found: TargetResult, metric: str) -> Table:
    table = Table(title=name, title_justify="left", title_style="bold")
    table.add_column("artifact")
    for heading in (metric, "p50 ms", "p90 ms", "peak MiB", "KiB", "vs plain INT8"):
        table.add_column(heading, justify="right", no_wrap=True)
    speed = found.speedup_vs_plain_int8
    ratio = "" if speed is None else f"{speed.ratio:.2f}× ({speed.low:.2f}–{speed.high:.2f})"
    rows = [
        ("float", found.float, ""),
        ("plain INT8", found.plain_int8, "1.00×"),
        ("chosen", found.chosen, ratio),
    ]
    for label, entry, versus in rows:
        if entry is not None:
            table.add_row(*_cells(label, entry, versus))
    return table


def _cells(label: str, entry: Entry, versus: str) -> tuple[str, ...]:
    return (
        label + ("" if entry.settled else " *did not settle*"),
        f"{entry.accuracy:.2f}",
        f"{entry.p50_ms:.3f}",
        f"{entry.p90_ms:.3f}",
        f"{entry.peak_memory_bytes / 2**20:.1f}",
        f"{entry.artifact_bytes / 2**10:.0f}",
        versus,
    )
