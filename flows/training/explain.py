"""`edgeloop policy explain`: why each unit of a finished run got its ratio, and each block its fate."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.errors import BadInputError
from device_bench.protocol import Record
from device_bench.screen import wide_console
from flows.compression.bookkeeping import TASK_FILE
from flows.runs.folders import run_named
from pipeline.answer_file import ANSWERS_FILE, AnswerFile
from pipeline.experience import Trial, TrialLog
from pipeline.plan import CompressionPlan
from pipeline.policy import POLICIES, load_policy
from pipeline.policy.explainer import Explainer
from pipeline.policy.explanation import Reason, RunExplanation, Shift, TargetExplanation
from pipeline.result import RunResult
from pipeline.run_folder import RunFolder
from pipeline.task_record import TaskRecord

Kind = TypeVar("Kind", bound=Record)

UNKNOWN = "—"
# So many features of one position are shown; --json has them all.
SHOWN_FEATURES = 3


def explain_run(path: Path, *, as_json: bool) -> int:
    """Explain the chosen plans of the run in `path`.

    Raises:
        BadInputError: there is no run, it is not finished, or an earlier version made it.
    """
    path = run_named(path)
    folder = RunFolder.existing(path)
    again = f"bring it up to date with `edgeloop compress --resume {path}`"
    result = _read(RunResult, path / "result.json", f"the run is not finished; {again}")
    record = _read(TaskRecord, path / TASK_FILE, f"an earlier version made the run; {again}")
    plans = {name: found.plan for name, found in result.targets.items()}
    explanation = explained(folder.run_id, record, path, plans)
    if as_json:
        sys.stdout.write(explanation.model_dump_json(indent=2) + "\n")
    else:
        console = wide_console()
        for found in explanation.targets.values():
            _show(console, found)
    return 0


def explained(
    run_id: str, record: TaskRecord, folder: Path, plans: Mapping[str, CompressionPlan]
) -> RunExplanation:
    """Why each target got its plan, from what the run's folder holds.

    Raises:
        BadInputError: a file there is none of this version's.
    """
    latest = {trial.number: trial for trial in TrialLog(folder / "trials.jsonl").read()}
    ordered: Sequence[Trial] = [latest[number] for number in sorted(latest)]
    chosen = {plan.plan_id for plan in plans.values()}
    origins = {trial.origin for trial in ordered if trial.plan.plan_id in chosen} & set(POLICIES)
    context = record.context(plans=[*plans.values(), *(trial.plan for trial in ordered)])
    outputs = AnswerFile(folder / ANSWERS_FILE).read(record.metric)
    explainer = Explainer(
        context=replace(context, outputs=outputs),
        probed=frozenset(probe.change for probe in record.probes),
        trials=ordered,
        policies={name: load_policy(name) for name in sorted(origins)},
    )
    return RunExplanation(
        run_id=run_id,
        metric=record.metric.value,
        targets={name: explainer.explain(name, plan) for name, plan in plans.items()},
    )


def _read(kind: type[Kind], path: Path, otherwise: str) -> Kind:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BadInputError(f"{path.parent} has no {path.name}: {otherwise}") from None
    except (OSError, ValidationError) as error:
        raise BadInputError(f"{path} cannot be read ({error}); {otherwise}") from error


def _show(console: Console, found: TargetExplanation) -> None:
    console.print(_title(found), style="bold", highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("unit or block", overflow="fold", no_wrap=True)
    for heading in ("kept", "MACs", "latency", "alone", "undone", "one step on"):
        table.add_column(heading, justify="right")
    for reason in found.reasons:
        table.add_row(*map(escape, _cells(reason)))
    console.print(table)
    for reason in found.reasons:
        why = "; ".join([reason.why, *_features(reason)])
        console.print(f"{_name(reason)}: {why}", highlight=False, markup=False)
    console.print(
        "Each change as milliseconds / points of the metric lost. Alone: made to the original, measured "
        "(~ between two measurements). Undone and one step on: predicted within the plan.",
        highlight=False,
    )
    for missing in found.missing:
        console.print(f"Not known: {missing}", highlight=False, markup=False)
    console.print()


def _title(found: TargetExplanation) -> str:
    parts = [f"{found.target}: plan {found.plan_id}"]
    if found.trial is not None:
        parts.append(f"trial {found.trial} by {found.policy}")
    if found.latency_ms is not None:
        parts.append(f"{found.latency_ms:.3g} ms")
    if found.drop is not None:
        after = "" if found.recovered_drop is None else f", {_points(found.recovered_drop)} after"
        parts.append(f"{_points(found.drop)} before recovery{after}")
    if found.predicted_latency_ms is not None and found.predicted_drop is not None:
        parts.append(f"predicted {found.predicted_latency_ms:.3g} ms, {_points(found.predicted_drop)}")
    return "; ".join(parts)


def _points(drop: float) -> str:
    return f"{abs(drop):.2f} points {'lost' if drop >= 0 else 'gained'}"


def _cells(reason: Reason) -> tuple[str, ...]:
    share = reason.latency_share
    mark = "" if reason.measured or reason.alone is None else "~"
    return (
        _name(reason),
        "removed" if reason.kept == 0.0 else f"{100 * reason.kept:.0f} %",
        f"{100 * reason.macs_share:.1f} %",
        UNKNOWN if share is None else f"{100 * share:.1f} %",
        mark + _shift(reason.alone),
        _shift(reason.undone),
        _shift(reason.further),
    )


def _name(reason: Reason) -> str:
    return f"block {reason.name}" if reason.is_block else reason.name


def _shift(shift: Shift | None) -> str:
    return UNKNOWN if shift is None else f"{shift.latency_ms:+.2g} / {shift.drop:+.2f}"


def _features(reason: Reason) -> list[str]:
    ranked = sorted(reason.attributions.items(), key=lambda pair: -abs(pair[1]))[:SHOWN_FEATURES]
    return [f"{name} {value:+.2g}" for name, value in ranked if value]
