"""A file that a run made and that devices shall run: what the fleet benchmark watches."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from device_bench.errors import BadInputError
from device_bench.protocol import Record, RuntimeName
from pipeline.result import RunResult

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,126}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"


class Release(Record):
    """One released file; of those with one name the newest counts.

    `name`: what it is called in the fleet: by default model, data and target of its run. `sha256`, `bytes`:
    of the file. `file_name`: as the run called it. `target`: what it was made for. `metric`, `score`: on the
    test split. `p50_ms`: on its target, when the run proved it. `device_class`: the devices that it is meant
    for; None for all that have its runtime.
    """

    name: str = Field(pattern=NAME_PATTERN)
    sha256: str = Field(pattern=SHA256_PATTERN)
    bytes: int = Field(ge=1)
    file_name: str
    run_id: str
    plan_id: str
    target: str
    runtime: RuntimeName
    threads: int = Field(default=1, ge=1)
    metric: str
    score: float
    p50_ms: float = Field(gt=0)
    device_class: str | None = None
    created_at: datetime


def releases_of(run: Path, now: datetime, device_class: str | None = None) -> dict[Path, Release]:
    """The chosen files of a finished run's targets that met its budget, by path.

    Args:
        run: the run's folder.
        now: becomes `created_at`.

    Raises:
        BadInputError: the run has no result, no target met the budget, or a file is gone.
    """
    try:
        result = RunResult.model_validate_json((run / "result.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInputError(
            f"{run} has no result that can be read; give the folder of a finished run, or finish this one "
            f"with `edgeloop compress --resume {run}`"
        ) from error
    found = {}
    for target, outcome in result.targets.items():
        if not outcome.budget_met:
            continue
        path = run / outcome.chosen.artifact
        if not path.is_file():
            raise BadInputError(f"{path} of run {result.run_id} is gone; nothing can be released from there")
        found[path] = Release(
            name=default_name(result.model, result.data, target),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            bytes=path.stat().st_size,
            file_name=path.name,
            run_id=result.run_id,
            plan_id=outcome.plan_id,
            target=target,
            runtime=outcome.chosen.conditions.runtime,
            threads=outcome.chosen.conditions.threads,
            metric=result.metric,
            score=outcome.chosen.accuracy,
            p50_ms=outcome.chosen.p50_ms,
            device_class=device_class,
            created_at=now,
        )
    if not found:
        raise BadInputError(
            f"run {result.run_id} missed its budget on every target: nothing of it is released; compress "
            "with another budget or more trials"
        )
    return found


def default_name(model: str, data: str, target: str) -> str:
    """ "resnet20-cifar10-jpeg-local-litert": what a release is called where nobody says otherwise."""
    parts = [Path(part.replace(":", "-")).stem for part in (model, data)]
    return re.sub(r"[^a-z0-9._-]+", "-", "-".join([*parts, target]).lower()).strip("-._")[:127]
