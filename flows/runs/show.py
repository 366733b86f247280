"""`edgeloop runs show`: one run whole: what was asked for, what was found, every trial, where time went."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.screen import wide_console
from flows.compression.job import CompressJob, stored_job
from flows.compression.outcome import show_result
from flows.compression.stage_seconds import stage_seconds
from flows.compression.trial_rows import Row, trial_rows
from flows.runs.folders import find_run
from flows.runs.listing import say_what_is_open
from flows.runs.record import RunSummary, stored_result, summary
from pipeline.experience import Trial, TrialLog
from pipeline.report.wording import duration

NUMBERS = ("changes", "before", "rehearsed", "recovered")


def show_run(name: str, runs: Path, *, as_json: bool) -> int:
    """Show one run, finished or not.

    Raises:
        BadInputError: there is no such run, or one of its files is damaged.
    """
    path = find_run(name, runs)
    job, result = stored_job(path), stored_result(path)
    trials = TrialLog(path / "trials.jsonl").read()
    known = summary(path)
    if as_json:
        told = {
            "schema_version": 1,
            "run": known.model_dump(mode="json"),
            "job": job.model_dump(mode="json"),
            "trials": [trial.model_dump(mode="json") for trial in _latest(trials)],
            "seconds_by_stage": stage_seconds(path),
            "result": None if result is None else result.model_dump(mode="json"),
        }
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return 0
    console = wide_console()
    _show_job(console, known, job)
    if trials:
        console.print()
        console.print(_trials(trial_rows(trials, job.targets)))
    if result is not None:
        show_result(console, result, path)
        for note in result.notes:
            _say(console, f"note: {note}")
    spent = [f"{stage} {duration(seconds)}" for stage, seconds in stage_seconds(path).items()]
    if spent:
        _say(console, f"time: {', '.join(spent)}")
    say_what_is_open(console, known)
    return 0


def _show_job(console: Console, known: RunSummary, job: CompressJob) -> None:
    """What was asked for, in a few lines."""
    console.print(f"[bold]{escape(known.run_id)}[/bold]: {known.state}", highlight=False)
    _say(console, f"{job.model} on {job.data}, for {', '.join(job.targets)}; {known.folder}")
    limits = [
        f"{name} {value}"
        for name, value in job.budget.model_dump(exclude={"schema_version"}).items()
        if value is not None
    ]
    _say(
        console,
        f"budget: {', '.join(limits)}; policy {job.policy}, {job.trials} trials, {job.recovery_epochs:g} "
        f"epochs of recovery, seed {job.seed}, {job.threads} thread{'s' if job.threads > 1 else ''}",
    )


def _trials(rows: list[Row]) -> Table:
    """Without columns in which no trial has anything."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    shown = [heading for heading in rows[0] if any(row[heading] for row in rows)]
    for heading in shown:
        right = heading in NUMBERS or heading.startswith("ms on ")
        table.add_column(escape(heading), justify="right" if right else "left", overflow="fold", min_width=5)
    for row in rows:
        table.add_row(*(escape(row[heading]) for heading in shown))
    return table


def _latest(trials: tuple[Trial, ...]) -> list[Trial]:
    known = {trial.number: trial for trial in trials}
    return [known[number] for number in sorted(known)]


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
