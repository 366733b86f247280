"""A task on which plans can be tried one after another, be it by measuring or from a recorded table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.experience import Trial
from pipeline.pareto import hypervolume
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext

# Half of what the original knows more than chance. A plan that lost more before recovery is worth no trial.
LEAST_GAIN = 0.5


class TrialTask(Protocol):
    """One model, its data and one target, ready to try plans on."""

    @property
    def name(self) -> str:
        """Model, data and setting: "resnet20/digits/local-litert@2"."""
        ...

    @property
    def chance(self) -> float:
        """The metric of answers that know nothing, such as always the commonest class."""
        ...

    @property
    def context(self) -> PolicyContext:
        """What a policy may know: one target, and the effects of single changes where they were probed."""
        ...

    def run(self, plan: CompressionPlan, number: int, origin: str) -> Trial:
        """Try a plan. Equal plans have equal outcomes, and the second costs nothing."""
        ...


def point(task: TrialTask, trial: Trial) -> tuple[float, float] | None:
    """Where a trial of `task` lies; None if it failed.

    That is (latency over plain INT8's, accuracy above chance over that of the original).
    """
    context = task.context
    target = context.targets[0].name
    if trial.failure is not None or trial.accuracy is None or target not in trial.latency_ms:
        return None
    span = context.drop(task.chance)
    gain = 1.0 - context.drop(trial.accuracy) / span
    return trial.latency_ms[target] / context.base_latency_ms[target], gain


def area(points: Sequence[tuple[float, float] | None]) -> float:
    """Hypervolume of trials up to (1, `LEAST_GAIN`): slower than plain INT8, or worth less, adds nothing."""
    return hypervolume([found for found in points if found is not None], (1.0, LEAST_GAIN))
