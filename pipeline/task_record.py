"""What a run found out about its task before it tried a plan, so that others can learn from its trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from device_bench.protocol import Record
from pipeline.data.base import Metric
from pipeline.graph import ModelGraph
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, Effect
from pipeline.task import Task

if TYPE_CHECKING:
    from pipeline.policy.base import PolicyContext


class ProbeRecord(Record):
    """One probed change and what it did."""

    change: Change
    effect: Effect


class TaskRecord(Record):
    """A task with its model's graph and the original's figures.

    `width_step`: of the plan space. `float_accuracy`: on the search split. `chance`: the metric of answers
    that know nothing. `base_latency_ms`: p50 of plain INT8, by target. `shares`: target → unit → its share of
    that. `probes`: the measured effects of single changes, none where the policy wanted none.
    """

    task: Task
    graph: ModelGraph
    width_step: int = Field(ge=1)
    metric: Metric
    float_accuracy: float
    chance: float = 0.0
    base_latency_ms: dict[str, float]
    shares: dict[str, dict[str, float]] = Field(default_factory=dict)
    probes: tuple[ProbeRecord, ...] = ()

    @classmethod
    def of(cls, task: Task, context: PolicyContext, probes: Mapping[Change, Effect]) -> TaskRecord:
        """What `context` says of `task`, for use on any machine: where its data lie stays out of it."""
        return cls(
            task=task.model_copy(update={"data_root": None}),
            graph=context.graph,
            width_step=max(target.width_step for target in task.targets),
            metric=context.metric,
            float_accuracy=context.float_accuracy,
            chance=context.chance,
            base_latency_ms=dict(context.base_latency_ms),
            shares={name: dict(shares) for name, shares in context.shares.items()},
            probes=tuple(ProbeRecord(change=c, effect=e) for c, e in probes.items()),
        )

    @property
    def fingerprint(self) -> str:
        """That of the task."""
        return self.task.fingerprint

    def context(self, seed: int = 0, plans: Iterable[CompressionPlan] = ()) -> PolicyContext:
        """What a policy may know of the task, probes included; its space offers `plans` besides its own."""
        from pipeline.policy.base import PolicyContext
        from pipeline.search import with_effects
        from pipeline.space import PlanSpace

        context = PolicyContext(
            graph=self.graph,
            space=PlanSpace.of(self.graph, self.width_step).offering(plans),
            budget=self.task.budget,
            targets=tuple(t for t in self.task.targets if t.name in self.base_latency_ms),
            float_accuracy=self.float_accuracy,
            base_latency_ms=self.base_latency_ms,
            seed=seed,
            metric=self.metric,
            shares=self.shares,
            chance=self.chance,
        )
        return with_effects(context, {probe.change: probe.effect for probe in self.probes})
