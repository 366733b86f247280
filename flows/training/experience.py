"""`edgeloop experience`: what was tried in all runs, as a table, to a file, and from one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from device_bench.screen import wide_console
from pipeline.database import default_store
from pipeline.experience import ExperienceStore, StoredTrial
from pipeline.experience_file import export_experience, import_experience
from pipeline.task_record import TaskRecord

UNKNOWN = "—"


@dataclass(frozen=True)
class Tally:
    """The trials that one policy made for one task, as one target saw them.

    `best_speedup`: over plain INT8, of any trial that ran; `best_within_budget`: of those that recovered to
    within the task's accuracy budget. Both are None where the task's own figures are not known.
    """

    task: str
    model: str
    data: str
    policy: str
    target: str
    runs: int
    trials: int
    failures: int
    best_speedup: float | None
    best_within_budget: float | None


def export_to(file: Path, store: str | None) -> int:
    """Write all experience to a file and say how much it was."""
    with ExperienceStore(store or default_store()) as opened:
        count = export_experience(opened, file)
        _say(f"{count} trials of {len(opened.tasks())} known tasks written to {file}")
    return 0


def import_from(file: Path, store: str | None) -> int:
    """Merge a file into the store and say what was new."""
    with ExperienceStore(store or default_store()) as opened:
        merged = import_experience(opened, file)
        _say(
            f"{merged.added} trials added, {merged.completed} completed by their recovery, "
            f"{merged.known} known before; {merged.tasks} tasks learned; the store is {opened.where}"
        )
    return 0


def show_stats(store: str | None, *, as_json: bool) -> int:
    """What is in the store, by task, model, policy and target."""
    with ExperienceStore(store or default_store()) as opened:
        tallies = tally(opened.entries(), opened.tasks())
        where = opened.where
    if as_json:
        lines = {"schema_version": 1, "store": where, "experience": [asdict(line) for line in tallies]}
        sys.stdout.write(json.dumps(lines, indent=2) + "\n")
    elif not tallies:
        _say(
            f"the experience store {where} is empty; run edgeloop compress, "
            "or edgeloop experience import FILE"
        )
    else:
        wide_console().print(_table(tallies))
    return 0


def tally(entries: Iterable[StoredTrial], tasks: dict[str, TaskRecord]) -> list[Tally]:
    """One line for each task, policy and target, in that order."""
    groups: dict[tuple[str, str, str], list[StoredTrial]] = {}
    for entry in entries:
        record = tasks.get(entry.task_fingerprint)
        names = record.base_latency_ms if record is not None else entry.trial.latency_ms
        # A trial that was measured nowhere and whose task is not known still counts.
        for target in names or {UNKNOWN: 0.0}:
            groups.setdefault((entry.task_fingerprint, entry.trial.origin, target), []).append(entry)
    return [_tally(key, group, tasks.get(key[0])) for key, group in sorted(groups.items())]


def _tally(key: tuple[str, str, str], group: list[StoredTrial], record: TaskRecord | None) -> Tally:
    task, policy, target = key
    speedups, within = [], []
    for trial in (entry.trial for entry in group):
        if record is None or trial.failure is not None or target not in trial.latency_ms:
            continue
        speedup = record.base_latency_ms[target] / trial.latency_ms[target]
        speedups.append(speedup)
        recovered = trial.accuracy_recovered
        limit = record.task.budget.max_drop
        if recovered is not None and record.metric.drop(record.float_accuracy, recovered) <= limit:
            within.append(speedup)
    return Tally(
        task=task,
        model=UNKNOWN if record is None else record.task.model.source,
        data=UNKNOWN if record is None else record.task.data,
        policy=policy,
        target=target,
        runs=len({entry.run_id for entry in group}),
        trials=len(group),
        failures=sum(entry.trial.failure is not None for entry in group),
        best_speedup=max(speedups, default=None),
        best_within_budget=max(within, default=None),
    )


def _table(tallies: list[Tally]) -> Table:
    table = Table(title="Experience")
    for heading in ("task", "model", "data", "policy", "target"):
        table.add_column(heading, overflow="fold")
    for heading in ("runs", "trials", "failed", "fastest", "fastest within budget"):
        table.add_column(heading, justify="right")
    for line in tallies:
        words = (line.task[:8], line.model, line.data, line.policy, line.target)
        numbers = (line.runs, line.trials, line.failures)
        speeds = (line.best_speedup, line.best_within_budget)
        table.add_row(
            *map(escape, words),
            *map(str, numbers),
            *(UNKNOWN if speed is None else f"{speed:.2f}×" for speed in speeds),
        )
    return table


def _say(text: str) -> None:
    wide_console().print(text, highlight=False, soft_wrap=True, markup=False)
