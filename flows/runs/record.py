"""What can be told of a run from the files in its folder, at whatever stage it is."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from device_bench.errors import BadInputError
from device_bench.protocol import Record
from flows.compression.job import CompressJob, stored_job
from flows.compression.stage_seconds import stage_seconds
from pipeline.experience import TrialLog
from pipeline.result import RunResult, Speedup, TargetResult
from pipeline.run_folder import RunFolder

STAMP = "%Y%m%d-%H%M%S"
STAMP_LETTERS = 15


class RunState(StrEnum):
    """`running`: a process holds the folder. `unfinished`: none does, and there is no result yet."""

    RUNNING = "running"
    FINISHED = "finished"
    UNFINISHED = "unfinished"
    UNREADABLE = "unreadable"


class Outcome(Record):
    """What a run found for one target. `lost`: points of the metric below float, on the test split."""

    score: float
    lost: float
    p50_ms: float
    artifact_bytes: int
    speedup_vs_plain_int8: Speedup | None = None
    plan_id: str
    budget_met: bool
    misses: tuple[str, ...] = ()


class RunSummary(Record):
    """One run as a line of a list.

    `trials`: made so far, of `trials_asked`. `seconds`: at work, over all processes; None if not known yet.
    `gone`: targets whose boards went away, and what was said of them. `resume`: the command that goes on
    with it; empty where nothing is left to do. `problem`: why an unreadable run cannot be read.
    """

    run_id: str
    folder: str
    state: RunState
    started_at: datetime
    model: str = ""
    data: str = ""
    metric: str = ""
    policy: str = ""
    targets: tuple[str, ...] = ()
    trials: int = 0
    trials_asked: int = 0
    seconds: float | None = None
    budget_met: bool | None = None
    outcomes: dict[str, Outcome] = Field(default_factory=dict)
    gone: dict[str, str] = Field(default_factory=dict)
    resume: str = ""
    problem: str = ""


def summary(path: Path) -> RunSummary:
    """What the run in `path` is and has found. Damage does not raise: it is told as the run's problem."""
    folder = RunFolder(path)
    known = RunSummary(
        run_id=folder.run_id, folder=str(path), state=RunState.UNREADABLE, started_at=_started_at(path)
    )
    try:
        job = stored_job(path)
        result = stored_result(path)
        seconds = stage_seconds(path)
        trials = {trial.number for trial in TrialLog(path / "trials.jsonl").read()}
    except BadInputError as error:
        return known.model_copy(update={"problem": str(error)})
    state = RunState.FINISHED if result is not None else RunState.UNFINISHED
    if folder.at_work:
        state = RunState.RUNNING
    complete = result is not None and not result.lost
    resume = "" if complete or state is RunState.RUNNING else resume_command(path)
    told: dict[str, object] = {"state": state, "trials": len(trials), "resume": resume}
    told |= {"seconds": sum(seconds.values()) if seconds else None, **_of_job(job)}
    return known.model_copy(update=told | ({} if result is None else _of_result(result)))


def stored_result(path: Path) -> RunResult | None:
    """`result.json` of the run in `path`; None where the run has not come so far.

    Raises:
        BadInputError: it is damaged.
    """
    file = path / "result.json"
    try:
        return RunResult.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
        raise BadInputError(
            f"{file} cannot be read ({reason}); write it anew with `{resume_command(path)}`"
        ) from error


def resume_command(path: Path) -> str:
    """What goes on with the run in `path`."""
    return f"edgeloop compress --resume {shlex.quote(str(path))}"


def _of_job(job: CompressJob) -> dict[str, object]:
    return {
        "model": job.model,
        "data": job.data,
        "policy": job.policy,
        "targets": job.targets,
        "trials_asked": job.trials,
    }


def _of_result(result: RunResult) -> dict[str, object]:
    sign = 1.0 if result.higher_is_better else -1.0
    return {
        "metric": result.metric,
        "trials": result.trials,
        "seconds": result.seconds,
        "budget_met": result.budget_met,
        "outcomes": {name: _outcome(found, sign) for name, found in result.targets.items()},
        "gone": result.lost,
    }


def _outcome(found: TargetResult, sign: float) -> Outcome:
    chosen = found.chosen
    return Outcome(
        score=chosen.accuracy,
        lost=sign * (found.float.accuracy - chosen.accuracy),
        p50_ms=chosen.p50_ms,
        artifact_bytes=chosen.artifact_bytes,
        speedup_vs_plain_int8=found.speedup_vs_plain_int8,
        plan_id=found.plan_id,
        budget_met=found.budget_met,
        misses=found.misses,
    )


def _started_at(path: Path) -> datetime:
    """By the folder's name; of one that was renamed, when its job was written."""
    try:
        return datetime.strptime(path.name[:STAMP_LETTERS], STAMP).replace(tzinfo=UTC)
    except ValueError:
        return datetime.fromtimestamp((path / "job.json").stat().st_mtime, UTC)
