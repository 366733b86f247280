"""`report.html`, from the files in a finished run's folder: at the run's end, and at any time after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from device_bench.errors import BadInputError
from device_bench.protocol import Measurement, Record
from flows.compression.bookkeeping import TASK_FILE
from flows.training.explain import explained
from pipeline.policy.explanation import RunExplanation
from pipeline.report import write_report
from pipeline.result import RunResult
from pipeline.task_record import TaskRecord

Kind = TypeVar("Kind", bound=Record)

REPORT_FILE = "report.html"
FORMS = ("float", "plain_int8", "chosen")


def samples_file(run: Path, target: str, form: str) -> Path:
    """Where a run keeps the whole measurement of one form on one target."""
    return run / "targets" / target / f"{form}.measurement.json"


def write_run_report(run: Path, result: RunResult) -> Path:
    """Write the report of a finished run; returns its path.

    Args:
        run: the run's folder.
        result: what it found, its `result.json`.

    Raises:
        BadInputError: a file of the run is damaged.
        RunError: the report cannot be written.
    """
    path = run / REPORT_FILE
    write_report(result, run_samples(run, result), path, _why(run, result))
    return path


def run_samples(run: Path, result: RunResult) -> dict[str, Sequence[int]]:
    """Raw latency samples in ns by "<target>/<form>", of all measurements that the run kept.

    Raises:
        BadInputError: a measurement is damaged.
    """
    found: dict[str, Sequence[int]] = {}
    for target in result.targets:
        for form in FORMS:
            path = samples_file(run, target, form)
            if path.exists():
                found[f"{target}/{form}"] = _read(Measurement, path).samples_ns
    return found


def _why(run: Path, result: RunResult) -> RunExplanation | None:
    """Why the plans were chosen; runs of earlier versions kept nothing that would tell."""
    path = run / TASK_FILE
    if not path.exists():
        return None
    plans = {name: found.plan for name, found in result.targets.items()}
    return explained(result.run_id, _read(TaskRecord, path), run, plans)


def _read(kind: type[Kind], path: Path) -> Kind:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
        raise BadInputError(
            f"{path} cannot be read ({reason}); remove it to have the report without it, or start a new run"
        ) from error
