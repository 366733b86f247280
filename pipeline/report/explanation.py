"""The report's section on why a plan is as it is, as rows of ready text."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.policy.explanation import Reason, RunExplanation, Shift, TargetExplanation
from pipeline.report import wording
from pipeline.result import RunResult

# So many features of one unit are shown, those that weighed most.
SHOWN_FEATURES = 3


@dataclass(frozen=True)
class ReasonRow:
    """One unit or block. An em dash is what cannot be told."""

    name: str
    changed: bool
    kept: str
    macs: str
    latency: str
    alone: str
    undone: str
    further: str
    why: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class ExplainedTarget:
    """One target's plan; `missing` says what could not be told and how to have it."""

    name: str
    summary: str
    rows: tuple[ReasonRow, ...]
    missing: tuple[str, ...]


def explained_targets(why: RunExplanation, result: RunResult) -> list[ExplainedTarget]:
    """The explanation of every target of the run, in the run's order."""
    return [
        ExplainedTarget(
            name=name,
            summary=_summary(why.targets[name], result),
            rows=tuple(_row(reason) for reason in why.targets[name].reasons),
            missing=why.targets[name].missing,
        )
        for name in result.targets
        if name in why.targets
    ]


def _summary(found: TargetExplanation, result: RunResult) -> str:
    parts = [f"plan {found.plan_id}"]
    if found.trial is not None:
        parts.append(f"trial {found.trial}, proposed by {found.policy}")
    if found.drop is not None:
        parts.append(f"{wording.points(found.drop, result)} lost before recovery")
    if found.recovered_drop is not None:
        parts.append(f"{wording.points(found.recovered_drop, result)} after it")
    if found.predicted_drop is not None and found.predicted_latency_ms is not None:
        parts.append(
            f"predicted with what the trials showed: {wording.milliseconds(found.predicted_latency_ms)} and "
            f"{wording.points(found.predicted_drop, result)} lost"
        )
    return "; ".join(parts) + "."


def _row(reason: Reason) -> ReasonRow:
    between = "" if reason.measured or reason.alone is None else "≈ "
    ranked = sorted(reason.attributions.items(), key=lambda pair: -abs(pair[1]))[:SHOWN_FEATURES]
    return ReasonRow(
        name=f"block {reason.name}" if reason.is_block else reason.name,
        changed=reason.kept < 1.0,
        kept="removed" if reason.kept == 0.0 else f"{100 * reason.kept:.0f} %",
        macs=f"{100 * reason.macs_share:.1f} %",
        latency="—" if reason.latency_share is None else f"{100 * reason.latency_share:.1f} %",
        alone=between + _shift(reason.alone),
        undone=_shift(reason.undone),
        further=_shift(reason.further),
        why=reason.why,
        features=tuple(f"{name}: {_signed(value, 2)}" for name, value in ranked),
    )


def _shift(shift: Shift | None) -> str:
    if shift is None:
        return "—"
    return f"{_signed(shift.latency_ms, 4)} ms, {_signed(shift.drop, 2)}"


def _signed(value: float, digits: int) -> str:
    text = wording.signed(value, digits)
    return text if text.startswith(wording.MINUS) or float(text) == 0 else f"+{text}"
