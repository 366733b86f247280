"""`edgeloop runs list`: every run, what it found, and how to go on with those that did not end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.screen import wide_console
from flows.runs.folders import newest_first
from flows.runs.record import STAMP_LETTERS, Outcome, RunState, RunSummary
from pipeline.report.wording import duration

STYLES = {RunState.RUNNING: "cyan", RunState.UNFINISHED: "yellow", RunState.UNREADABLE: "red"}


def list_runs(runs: Path, most: int, *, as_json: bool) -> int:
    """Show the newest `most` runs in the folder `runs`, all of them for 0.

    Raises:
        BadInputError: `runs` is no folder.
    """
    found = newest_first(runs)
    shown = found[:most] if most else found
    if as_json:
        lines = [run.model_dump(mode="json") for run in shown]
        sys.stdout.write(json.dumps({"schema_version": 1, "runs": lines}, indent=2) + "\n")
        return 0
    console = wide_console()
    if not found:
        _say(console, f"there are no runs in {runs} yet; `edgeloop compress` makes one")
        return 0
    console.print(runs_table(shown))
    if len(found) > len(shown):
        _say(console, f"{len(found) - len(shown)} older ones are not shown; --limit 0 shows all")
    for run in shown:
        say_what_is_open(console, run)
    return 0


def runs_table(runs: Sequence[RunSummary]) -> Table:
    """A row for each run and target."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    # A narrow terminal breaks names and headings; it leaves nothing out.
    table.add_column("run", overflow="fold", min_width=STAMP_LETTERS)
    table.add_column("state", min_width=len("unfinished"))
    table.add_column("target", overflow="fold", min_width=10)
    for heading in ("trials", "lost", "p50 ms", "vs plain"):
        table.add_column(heading, justify="right", min_width=5)
    table.add_column("took", justify="right", min_width=6)
    for run in runs:
        state = _state(run)
        trials = f"{run.trials}" if run.trials >= run.trials_asked else f"{run.trials} of {run.trials_asked}"
        took = "" if run.seconds is None else duration(run.seconds)
        first, *others = _target_rows(run)
        table.add_row(escape(run.run_id), state, *first[:1], trials, *first[1:], took)
        for row in others:
            table.add_row("", "", *row[:1], "", *row[1:], "")
    return table


def say_what_is_open(console: Console, run: RunSummary) -> None:
    """How to go on with a run that did not end, and what is wrong with one that cannot be read."""
    if run.state is RunState.UNREADABLE:
        _say(console, f"{run.run_id}: {run.problem}")
    elif run.gone and run.resume:
        names = ", ".join(run.gone)
        _say(console, f"{run.run_id}: once {names} can be reached, go on with: {run.resume}")
    elif run.resume:
        _say(console, f"{run.run_id} is not finished; go on with: {run.resume}")


def _target_rows(run: RunSummary) -> list[tuple[str, ...]]:
    rows = []
    for target in run.targets or ("",):
        found = run.outcomes.get(target)
        name = escape(target)
        if target in run.gone:
            name += " [yellow]gone[/yellow]"
        rows.append((name, *(("",) * 3 if found is None else _cells(found))))
    return rows


def _cells(found: Outcome) -> tuple[str, ...]:
    return (
        f"{found.lost:+.2f}".replace("-", "−"),
        f"{found.p50_ms:.3f}",
        "" if found.speedup_vs_plain_int8 is None else f"{found.speedup_vs_plain_int8.ratio:.2f}×",
    )


def _state(run: RunSummary) -> str:
    if run.state is RunState.FINISHED:
        return "[green]budget met[/green]" if run.budget_met else "[yellow]budget missed[/yellow]"
    return f"[{STYLES[run.state]}]{run.state}[/{STYLES[run.state]}]"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
