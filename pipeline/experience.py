"""What was tried and what came of it: one record a trial, a log in the run's folder, a store for all runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pydantic import Field, ValidationError, model_validator

from device_bench.errors import BadInputError, RunError
from device_bench.protocol import Failure, Record
from pipeline.database import Database
from pipeline.plan import CompressionPlan
from pipeline.reward import RewardParts

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from pipeline.task_record import TaskRecord


class Trial(Record):
    """One plan built and measured.

    `accuracy`: the metric on the search split after batch-norm re-estimation and before recovery; absent
    only where the trial failed. `accuracy_rehearsed`: the float module's after a short recovery, which shows
    how well the plan recovers. `accuracy_recovered`: after recovery, where there was one. Latency is p50;
    dictionaries are by target, `seconds` by stage. `origin`: the policy that proposed the plan.
    """

    number: int = Field(ge=0)
    plan: CompressionPlan
    origin: str
    accuracy: float | None = None
    accuracy_rehearsed: float | None = None
    accuracy_recovered: float | None = None
    latency_ms: dict[str, float] = Field(default_factory=dict)
    peak_memory_bytes: dict[str, int] = Field(default_factory=dict)
    artifact_bytes: dict[str, int] = Field(default_factory=dict)
    reward: RewardParts | None = None
    failure: Failure | None = None
    seconds: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _outcome_or_failure(self) -> Self:
        if self.accuracy is None and self.failure is None:
            raise ValueError("a trial without an accuracy must say how it failed")
        return self


class StoredTrial(Record):
    """A trial with the run that made it and the task it was made for."""

    run_id: str
    task_fingerprint: str
    trial: Trial


class TrialLog:
    """`trials.jsonl`: a line for each trial, on the disk before `append` returns.

    Args:
        path: made with the first trial; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, trial: Trial) -> None:
        """Add a line; a torn one that a killed process left at the end goes first.

        Raises:
            BadInputError: the log is damaged.
            RunError: the disk is full or the file cannot be written.
        """
        whole = self._whole_bytes()
        try:
            with self.path.open("ab") as file:
                file.truncate(whole)
                file.write(trial.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"cannot write {self.path}: {error.strerror}; free some space or give a folder you may write"
            ) from error

    def read(self) -> tuple[Trial, ...]:
        """Every trial that was written whole, in order; none where there is no file.

        Raises:
            BadInputError: a line other than a torn last one is no trial; names the line.
        """
        trials = []
        for number, line in enumerate(self._bytes()[: self._whole_bytes()].splitlines(), start=1):
            try:
                trials.append(Trial.model_validate_json(line))
            except ValidationError as error:
                raise BadInputError(
                    f"{self.path}, line {number} is no trial ({error.errors()[0]['msg']}); "
                    "mend or remove that line, or start a new run"
                ) from error
        return tuple(trials)

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise BadInputError(f"cannot read {self.path}: {error.strerror}") from error

    def _whole_bytes(self) -> int:
        """Bytes up to the last line's end. What follows was never finished, since the end is written last."""
        return self._bytes().rfind(b"\n") + 1


class ExperienceStore:
    """Trials of all runs and their tasks, in a SQLite file or any database SQLAlchemy reaches.

    Each trial is committed on its own, so a killed process loses none that `add` returned from. Used as a
    context manager it closes itself.

    Args:
        where: path of a SQLite file (made with its folder when new), or a URL such as "postgresql+psycopg://…".
        clock: gives the time that is stored with a trial.

    Raises:
        BadInputError: the file is no experience store, is damaged or cannot be opened.
        MissingExtraError: SQLAlchemy is not installed.
    """

    def __init__(self, where: str | Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._database = Database(where)
        self.where = self._database.where
        import sqlalchemy as sa

        from pipeline.store_tables import TaskRow, TrialRow

        self._sa, self._row, self._task_row = sa, TrialRow, TaskRow

    def add(self, run_id: str, task_fingerprint: str, trial: Trial) -> None:
        """Store a trial. It takes the place of an earlier record of that number, made before recovery.

        Raises:
            BadInputError: a run of that name is there with another task.
            RunError: the store cannot be written.
        """

        def change(session: Session) -> None:
            row = session.scalar(self._sa.select(self._row).filter_by(run_id=run_id, number=trial.number))
            if row is None:
                row = self._row(run_id=run_id, number=trial.number, task_fingerprint=task_fingerprint)
                session.add(row)
            elif row.task_fingerprint != task_fingerprint:
                raise BadInputError(
                    f"run {run_id} in {self.where} is of task {row.task_fingerprint}, and trial "
                    f"{trial.number} of task {task_fingerprint}; give this run another name"
                )
            row.plan_id = trial.plan.plan_id
            row.payload = trial.model_dump_json()
            row.schema_version = trial.schema_version
            row.created_at = self._clock()

        self._database.write(change)

    def trials(self, run_id: str | None = None, task_fingerprint: str | None = None) -> tuple[Trial, ...]:
        """Trials in the order they were first stored, of one run or task where asked.

        Raises:
            BadInputError: a stored trial cannot be read.
        """
        query = self._sa.select(self._row.run_id, self._row.number, self._row.payload).order_by(self._row.id)
        if run_id is not None:
            query = query.filter_by(run_id=run_id)
        if task_fingerprint is not None:
            query = query.filter_by(task_fingerprint=task_fingerprint)
        with self._database.explained(), self._database.session() as session:
            rows = session.execute(query).all()
        return tuple(self._trial(run, number, payload) for run, number, payload in rows)

    def entries(self) -> tuple[StoredTrial, ...]:
        """Every trial with its run and its task, in the order they were first stored.

        Raises:
            BadInputError: a stored trial cannot be read.
        """
        row = self._row
        query = self._sa.select(row.run_id, row.task_fingerprint, row.number, row.payload).order_by(row.id)
        with self._database.explained(), self._database.session() as session:
            rows = session.execute(query).all()
        return tuple(
            StoredTrial(run_id=run, task_fingerprint=task, trial=self._trial(run, number, payload))
            for run, task, number, payload in rows
        )

    def add_task(self, record: TaskRecord) -> None:
        """Store what is known of a task, in place of what was; an equal record changes nothing.

        Raises:
            RunError: the store cannot be written.
        """

        def change(session: Session) -> None:
            row = session.get(self._task_row, record.fingerprint)
            if row is None:
                row = self._task_row(fingerprint=record.fingerprint)
                session.add(row)
            row.payload = record.model_dump_json()
            row.schema_version = record.schema_version
            row.created_at = self._clock()

        self._database.write(change)

    def tasks(self) -> dict[str, TaskRecord]:
        """What is known of tasks, by fingerprint. Tasks of runs by earlier versions are not among them.

        Raises:
            BadInputError: a stored task cannot be read.
        """
        from pipeline.task_record import TaskRecord

        row = self._task_row
        with self._database.explained(), self._database.session() as session:
            rows = session.execute(
                self._sa.select(row.fingerprint, row.payload).order_by(row.fingerprint)
            ).all()
        found = {}
        for fingerprint, payload in rows:
            try:
                found[fingerprint] = TaskRecord.model_validate_json(payload)
            except ValidationError as error:
                raise BadInputError(
                    f"{self.where} is damaged: task {fingerprint} is no task "
                    f"({error.errors()[0]['msg']}); move the file away to start a new store"
                ) from error
        return found

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _trial(self, run_id: str, number: int, payload: str) -> Trial:
        try:
            return Trial.model_validate_json(payload)
        except ValidationError as error:
            raise BadInputError(
                f"{self.where} is damaged: trial {number} of run {run_id} is no trial "
                f"({error.errors()[0]['msg']}); move the file away to start a new store"
            ) from error
