"""What is said of a plan: for every unit and block why it is as it is; and what a policy may add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from pydantic import Field

from device_bench.protocol import Record
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext

Attributions = Mapping[str, Mapping[str, float]]


@runtime_checkable
class Explains(Protocol):
    """A policy that tells by which features it decides."""

    def attribute(
        self, context: PolicyContext, history: Sequence[Trial], plan: CompressionPlan
    ) -> Attributions:
        """For positions of the plan (units and blocks by name) what each feature contributed, by its name.

        Positive spoke for what the plan does there. Positions without attributions may be left out.
        """
        ...


class Shift(Record):
    """What one change does: milliseconds, positive is slower; points of the metric lost, negative are won."""

    latency_ms: float
    drop: float


class Reason(Record):
    """One unit or block of the plan.

    `kept`: the share of the width that stays, 0 where it is gone. `alone`: the change that the plan makes
    here, made to the original; `measured` tells a probe from a line between two. `undone` and `further`
    (with `further_kept`) are predictions within the plan. Absent is what cannot be told.
    """

    name: str
    is_block: bool
    width: int | None = None
    kept: float
    why: str
    macs_share: float
    latency_share: float | None = None
    alone: Shift | None = None
    measured: bool = False
    undone: Shift | None = None
    further: Shift | None = None
    further_kept: float | None = None
    attributions: dict[str, float] = Field(default_factory=dict)


class TargetExplanation(Record):
    """The plan that a target got, and why. `missing`: what could not be told, and how to have it.

    `drop` is before recovery, `recovered_drop` after it, both on the search split in points of the metric.
    """

    target: str
    plan_id: str
    policy: str | None = None
    trial: int | None = None
    latency_ms: float | None = None
    drop: float | None = None
    recovered_drop: float | None = None
    predicted_latency_ms: float | None = None
    predicted_drop: float | None = None
    reasons: tuple[Reason, ...]
    missing: tuple[str, ...] = ()


class RunExplanation(Record):
    """Why each target of a run got its plan."""

    run_id: str
    metric: str
    targets: dict[str, TargetExplanation]
