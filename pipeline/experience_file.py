"""Experience as a file: JSON Lines that one machine writes and another merges into its own store.

Each line is one `ExperienceLine`: a task, or a trial with its run and its task. Tasks stand first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import ValidationError, model_validator

from device_bench.errors import BadInputError
from device_bench.protocol import Record
from device_bench.storage import write_whole
from pipeline.experience import ExperienceStore, StoredTrial, Trial
from pipeline.plan import RecoveryChoice
from pipeline.task_record import TaskRecord


class ExperienceLine(Record):
    """One line: either a task or a trial."""

    task: TaskRecord | None = None
    stored: StoredTrial | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if (self.task is None) == (self.stored is None):
            raise ValueError("a line is either a task or a stored trial")
        return self


@dataclass(frozen=True)
class Merged:
    """What an import did: trials added, trials replaced by a later record of them, trials known before."""

    added: int
    completed: int
    known: int
    tasks: int


def export_experience(store: ExperienceStore, path: Path) -> int:
    """Write every task and trial of `store` to `path`; returns the number of trials.

    Raises:
        BadInputError: the store is empty or damaged.
        RunError: the file cannot be written.
    """
    entries = store.entries()
    if not entries:
        raise BadInputError(
            f"the experience store {store.where} is empty: there is nothing to export; run edgeloop compress"
        )
    lines = [ExperienceLine(task=task) for task in store.tasks().values()]
    lines += [ExperienceLine(stored=entry) for entry in entries]
    write_whole(path, b"".join(line.model_dump_json(exclude_none=True).encode() + b"\n" for line in lines))
    return len(entries)


def read_experience(path: Path) -> tuple[list[TaskRecord], list[StoredTrial]]:
    """The tasks and trials of a file.

    Raises:
        BadInputError: there is no such file, or a line is no experience; names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"cannot read {path}: {error.strerror}; give a file of `experience export`"
        ) from error
    tasks, trials = [], []
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            line = ExperienceLine.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the line"
            raise BadInputError(
                f"{path}, line {number} is no experience ({place}: {first['msg']}); nothing was imported: "
                "export the file again where it comes from"
            ) from error
        if line.task is not None:
            tasks.append(line.task)
        if line.stored is not None:
            trials.append(line.stored)
    if not trials:
        raise BadInputError(f"{path} holds no trials; give a file of `edgeloop experience export`")
    return tasks, trials


def import_experience(store: ExperienceStore, path: Path) -> Merged:
    """Merge a file into `store`: nothing is there twice afterwards, and nothing of either is lost.

    A trial that is there already stays; of two records of one trial the one with a recovery is kept. A run
    of the same name that is another run (of another task, or with other plans) is added under a name of its
    own, the same one at every import.

    Raises:
        BadInputError: the file or the store is damaged; the store is as it was.
    """
    tasks, trials = read_experience(path)
    known_tasks = store.tasks()
    fresh = [task for task in tasks if _tells_more(task, known_tasks.get(task.fingerprint))]
    for task in fresh:
        store.add_task(task)
    names = _names(store.entries(), trials)
    there = {(e.run_id, e.trial.number): e.trial for e in store.entries()}
    added = completed = 0
    for entry in trials:
        run_id = names[entry.run_id, entry.task_fingerprint]
        before = there.get((run_id, entry.trial.number))
        if before is None:
            added += 1
        elif before.accuracy_recovered is None and entry.trial.accuracy_recovered is not None:
            completed += 1
        else:
            continue
        store.add(run_id, entry.task_fingerprint, entry.trial)
        there[run_id, entry.trial.number] = entry.trial
    return Merged(added, completed, len(trials) - added - completed, len(fresh))


def _tells_more(task: TaskRecord, known: TaskRecord | None) -> bool:
    return known is None or len(task.probes) > len(known.probes)


def _names(known: Iterable[StoredTrial], new: Iterable[StoredTrial]) -> dict[tuple[str, str], str]:
    """What each run of the file is called in the store, by its name and task."""
    there = _by_run(known)
    names = {}
    for (run_id, task), trials in _by_run(new).items():
        others = {
            number: trial
            for (name, _), found in there.items()
            if name == run_id
            for number, trial in found.items()
        }
        same_task = (run_id, task) in there or not others
        same_plans = all(
            _same_try(trial, others[number]) for number, trial in trials.items() if number in others
        )
        if same_task and same_plans:
            names[run_id, task] = run_id
        else:
            first = trials[min(trials)]
            content = f"{task}|{_unrecovered(first)}"
            names[run_id, task] = f"{run_id}~{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    return names


def _by_run(entries: Iterable[StoredTrial]) -> dict[tuple[str, str], dict[int, Trial]]:
    found: dict[tuple[str, str], dict[int, Trial]] = {}
    for entry in entries:
        found.setdefault((entry.run_id, entry.task_fingerprint), {})[entry.trial.number] = entry.trial
    return found


def _same_try(one: Trial, other: Trial) -> bool:
    """True for two records of one trial, be one of them of before its recovery."""
    return _unrecovered(one) == _unrecovered(other)


def _unrecovered(trial: Trial) -> str:
    """What a trial was before recovery: its plan, and what came of it."""
    plan = trial.plan.model_copy(update={"recovery": RecoveryChoice()})
    return f"{plan.canonical_json()}|{trial.accuracy}|{sorted(trial.latency_ms.items())}"
