"""How fast a policy finds good plans: the hypervolume of its trials, after each of them.

The area that trials dominate (`pipeline.tables.trial_task.area`) is divided by that of the best known front
of the task, so that 1 is as good as anything that was ever seen there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Protocol, runtime_checkable

import numpy as np

from device_bench.errors import BadInputError
from pipeline.experience import Trial
from pipeline.pareto import pareto_front
from pipeline.policy.base import Policy
from pipeline.tables.codec import Options
from pipeline.tables.task_table import TaskTable
from pipeline.tables.trial_task import TrialTask, area, point

CHECKPOINTS = (1, 5, 10, 20, 50, 200)

# A trial's place: latency over plain INT8's, and what is left of the original's knowledge.
Point = tuple[float, float]
AfterTrial = Callable[[int], None]


@dataclass(frozen=True)
class Curve:
    """What one policy found on one task from one seed.

    Args:
        points: where each trial lies, in the order they were made; None for one that failed.
    """

    policy: str
    task: str
    seed: int
    points: tuple[Point | None, ...]

    @property
    def areas(self) -> tuple[float, ...]:
        """Hypervolume after each trial; it never falls."""
        return tuple(area(self.points[:made]) for made in range(1, len(self.points) + 1))

    def area_after(self, trials: int) -> float:
        """Hypervolume after `trials`; a policy that had no more plans keeps what it has."""
        return area(self.points[:trials])


@runtime_checkable
class RecordedTask(Protocol):
    """A task that answers for many rows at once, such as a `TableTask`."""

    @property
    def table(self) -> TaskTable:
        """The table it stands on."""
        ...

    def accuracy(self, rows: Options) -> np.ndarray:
        """The metric before recovery of plans [n, positions], float64 [n]."""
        ...

    def latency_ms(self, rows: Options) -> np.ndarray:
        """p50 of plans [n, positions], float64 [n] in ms."""
        ...


@runtime_checkable
class KeepingTask(Protocol):
    """A task that keeps what was tried on it, such as a `WorkbenchTask`."""

    @property
    def tried(self) -> Sequence[Trial]:
        """Everything that was ever tried, single changes included."""
        ...


def run_policy(
    policy: Policy, task: TrialTask, trials: int, seed: int, after: AfterTrial | None = None
) -> tuple[Trial, ...]:
    """Let a policy try up to `trials` plans, one after another; it sees what came of all before.

    Failed trials count and are seen too. Fewer come back where the policy had nothing left to propose.

    Args:
        after: hears of each trial by how many were made.

    Raises:
        BadInputError: fewer than one trial, or what the policy refuses of the task.
    """
    if trials < 1:
        raise BadInputError(f"trials must be at least 1; got {trials}")
    context = replace(task.context, seed=seed)
    history: list[Trial] = []
    while len(history) < trials:
        plans = policy.propose(context, history, 1)
        if not plans:
            break
        history.append(task.run(plans[0], len(history) + 1, policy.name))
        if after is not None:
            after(len(history))
    return tuple(history)


def curve_of(task: TrialTask, policy: str, seed: int, trials: Iterable[Trial]) -> Curve:
    """The curve of trials that were made on `task`."""
    return Curve(policy, task.name, seed, tuple(_finite(point(task, trial)) for trial in trials))


def known_points(task: TrialTask) -> list[Point | None]:
    """Where plans lie that a task knows of itself: those of its table, or those it was asked for before.

    Plans of a table are answered for by the task as any others are. The recorded figures would not do: luck
    in measuring would make a front that no policy can reach.
    """
    if isinstance(task, KeepingTask):
        return [_finite(point(task, trial)) for trial in task.tried]
    if not isinstance(task, RecordedTask):
        return []
    rows = task.table.options
    context = task.context
    base = context.base_latency_ms[context.targets[0].name]
    span = context.drop(task.chance)
    accuracy, latency = task.accuracy(rows), task.latency_ms(rows)
    return [
        (float(ms) / base, 1.0 - context.drop(float(score)) / span)
        for score, ms in zip(accuracy, latency, strict=True)
    ]


def best_known_area(points: Iterable[Point | None]) -> float:
    """Hypervolume of the front of all points ever seen on a task."""
    return area([found for found in points if found is not None])


def front_of(points: Iterable[Point | None]) -> list[Point]:
    """Those of the points that no other beats, by rising latency."""
    known = [found for found in points if found is not None]
    return [known[index] for index in pareto_front(known)]


def normalised(areas: Sequence[float], best: float) -> list[float]:
    """Areas as shares of the best known one; 0 where nothing that counts is known."""
    return [found / best if best > 0 else 0.0 for found in areas]


def _finite(found: Point | None) -> Point | None:
    return found if found is not None and all(isfinite(value) for value in found) else None
