"""What tasks must answer for episodes to be played on them, and what their answers come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from device_bench.errors import BadInputError
from pipeline.environment.sheet import TaskSheet
from pipeline.policy.base import PolicyContext
from pipeline.tables.codec import Options, PlanCodec

Vector = NDArray[np.float64]


class OutcomeTask(Protocol):
    """One model on one target whose outcomes are known at once, such as a `TableTask`."""

    @property
    def name(self) -> str:
        """Model, data and setting."""
        ...

    @property
    def context(self) -> PolicyContext:
        """What a policy may know; its first target is the one that counts."""
        ...

    @property
    def codec(self) -> PlanCodec:
        """Of the context's space."""
        ...

    def accuracy(self, rows: Options) -> Vector:
        """The metric before recovery of plans in normal form, float64 [n]; NaN where there is none."""
        ...

    def latency_ms(self, rows: Options) -> Vector:
        """p50 of plans in normal form, float64 [n] in ms; NaN where there is none."""
        ...


@runtime_checkable
class SizedTask(Protocol):
    """A task that also tells what files and memory take; asked only where the budget limits them."""

    def peak_memory_bytes(self, rows: Options) -> Vector:
        """float64 [n]."""
        ...

    def artifact_bytes(self, rows: Options) -> Vector:
        """float64 [n]."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What plans [n] came to. `violations`: by constraint figure over limit less 1, [n]."""

    ratio: Vector
    gain: Vector
    failed: NDArray[np.bool_]
    violations: dict[str, Vector] = field(default_factory=dict)

    def violations_of(self, plan: int) -> dict[str, float]:
        """Those of one plan."""
        return {name: float(excess[plan]) for name, excess in self.violations.items()}

    @property
    def counts(self) -> NDArray[np.bool_]:
        """Which plans are points of the front."""
        met = ~self.failed
        for excess in self.violations.values():
            met = met & (excess <= 0.0)
        return met


@dataclass(frozen=True, eq=False)
class Arena:
    """A task that can be played, and its sheet."""

    task: OutcomeTask
    sheet: TaskSheet

    @classmethod
    def of(cls, task: OutcomeTask) -> Arena:
        """The arena of a task.

        Raises:
            BadInputError: nothing can be changed in its model, every plan breaks the budget, or the budget
                limits what the task cannot tell.
        """
        context = task.context
        sheet = TaskSheet.of(context, context.targets[0].name, task.codec)
        budget = context.budget
        if (budget.max_peak_memory_bytes or budget.max_artifact_bytes) and not isinstance(task, SizedTask):
            raise BadInputError(
                f"the budget of {task.name} limits bytes, which this task cannot tell; leave that limit out, "
                "or record a table with sizes"
            )
        rows = sheet.links.normal(np.unique(sheet.ladder, axis=0))
        found = outcome_of(task, sheet, rows)
        if not found.counts.any():
            raise _hopeless(task, found)
        return cls(task, sheet)


def outcome_of(task: OutcomeTask, sheet: TaskSheet, rows: Options) -> Outcome:
    """Outcomes of plans in normal form [n, positions]; what is not finite failed."""
    context = sheet.context
    accuracy = np.asarray(task.accuracy(rows), dtype=np.float64)
    ratio = sheet.ratio(task.latency_ms(rows))
    failed = ~(np.isfinite(accuracy) & np.isfinite(ratio))
    span = context.drop(context.chance)
    drops = np.array([context.drop(value) for value in accuracy])
    violations: dict[str, Vector] = {}
    if np.isfinite(sheet.limit):
        violations["latency"] = ratio / sheet.limit - 1.0
    limits = {
        "peak_memory": context.budget.max_peak_memory_bytes,
        "artifact": context.budget.max_artifact_bytes,
    }
    for name, limit in limits.items():
        if limit is not None and isinstance(task, SizedTask):
            sizes = task.peak_memory_bytes(rows) if name == "peak_memory" else task.artifact_bytes(rows)
            violations[name] = np.asarray(sizes, dtype=np.float64) / limit - 1.0
            failed = failed | ~np.isfinite(violations[name])
    return Outcome(ratio, 1.0 - drops / span, failed, violations)


def _hopeless(task: OutcomeTask, found: Outcome) -> BadInputError:
    if found.failed.all():
        return BadInputError(f"every plan of {task.name} that was asked for failed; check its model and data")
    least = {name: float(excess[~found.failed].min()) for name, excess in found.violations.items()}
    told = ", ".join(
        f"{name} is over its limit by {100 * excess:.0f} % or more" for name, excess in least.items()
    )
    return BadInputError(
        f"every plan of {task.name} breaks the budget: {told}; raise the budget, or take a smaller model"
    )
