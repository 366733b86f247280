"""What a policy is given and what it gives back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from pydantic import Field, model_validator

from device_bench.protocol import Record
from pipeline.data.base import Metric
from pipeline.experience import Trial
from pipeline.graph import ModelGraph
from pipeline.plan import CompressionPlan
from pipeline.space import PlanSpace
from pipeline.target import Target
from pipeline.task import Budget

if TYPE_CHECKING:
    from pipeline.policy.outputs import ProbedOutputs


class Change(Record):
    """One single change to the original: a unit at a keep ratio below 1, or a block removed."""

    unit: str | None = None
    keep_ratio: float | None = Field(default=None, gt=0.0, lt=1.0)
    block: str | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if (self.unit is None) != (self.keep_ratio is None) or (self.unit is None) == (self.block is None):
            raise ValueError("a change is either unit and keep_ratio, or block")
        return self


class Effect(Record):
    """What a change costs and gives when nothing else changes, measured.

    `accuracy`: the metric on the search split after batch-norm re-estimation, without recovery. `latency_ms`:
    p50 of the plain INT8 export with this change, by target.
    """

    accuracy: float
    latency_ms: Mapping[str, float]


@dataclass(frozen=True)
class PolicyContext:
    """All a policy may know of a task, besides what was tried.

    Args:
        space: the plans it may propose.
        targets: where candidates are measured.
        float_accuracy: the float model's metric on the search split.
        base_latency_ms: p50 of the original's plain INT8 export, by target.
        effects: of single changes, as far as they were probed.
        metric: what accuracies are, and whether higher is better.
        shares: target → unit → its share of the original's latency there, and "other"; a target that cannot
            tell is absent.
        chance: the metric of answers that know nothing, such as always the commonest class.
        least_gain: how much of what the original knows above chance a plan must still know before recovery to
            be worth a trial; less where a recovery follows.
        most_gain: what a plan still knows beyond that is worth nothing: a recovery brings it back anyway.
        outputs: what the original and the probed changes answer, where that was kept.
    """

    graph: ModelGraph
    space: PlanSpace
    budget: Budget
    targets: tuple[Target, ...]
    float_accuracy: float
    base_latency_ms: Mapping[str, float]
    effects: Mapping[Change, Effect] = field(default_factory=dict)
    seed: int = 0
    metric: Metric = Metric.ACCURACY
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    chance: float = 0.0
    least_gain: float = 0.5
    most_gain: float = 1.0
    outputs: ProbedOutputs | None = None

    def gain(self, accuracy: float) -> float:
        """What is left of what the original knows above chance: 1 for the original, 0 for guesses."""
        span = self.drop(self.chance)
        return 1.0 - self.drop(accuracy) / span if span > 0 else 0.0

    def drop(self, accuracy: float) -> float:
        """How much worse than the float model, in points of the metric; positive is worse."""
        return self.metric.drop(self.float_accuracy, accuracy)

    def speedup(self, trial: Trial, target: str) -> float | None:
        """How much faster the trial was than plain INT8 on the target; None where it was not measured."""
        latency = trial.latency_ms.get(target)
        return None if latency is None else self.base_latency_ms[target] / latency


class Policy(Protocol):
    """Proposes what to try next. It keeps nothing between calls: the history is its only memory."""

    @property
    def name(self) -> str:
        """What `POLICIES` calls it, and the origin of its trials."""
        ...

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` plans of `context.space`, the same for equal arguments.

        None of them has the shape of the original, of a trial in `history` or of another one proposed. Fewer
        than `count` means that the policy has nothing left to propose.
        """
        ...


Shape = tuple[tuple[tuple[str, float], ...], tuple[str, ...]]


def shape_of(plan: CompressionPlan) -> Shape:
    """What a plan makes of the model: narrowed units and removed blocks, and nothing else."""
    units = tuple(sorted((n, c.keep_ratio) for n, c in plan.units.items() if c.keep_ratio < 1.0))
    return units, plan.removed


class Novelty:
    """Lets a plan's shape pass once, and never that of the original or of a trial in the history."""

    def __init__(self, history: Iterable[Trial]) -> None:
        self._seen = {shape_of(CompressionPlan()), *(shape_of(trial.plan) for trial in history)}

    def admits(self, plan: CompressionPlan) -> bool:
        """True the first time a shape is asked for."""
        shape = shape_of(plan)
        if shape in self._seen:
            return False
        self._seen.add(shape)
        return True
