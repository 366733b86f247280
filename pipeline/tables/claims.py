"""What a policy's plans are worth beside the curve: the first one, and those meant for another target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Policy
from pipeline.policy.uniform import KEEP_RATIOS
from pipeline.search import changes_to_probe
from pipeline.tables.curve import Point, run_policy
from pipeline.tables.trial_task import TrialTask, point

# A plan for a target is the fastest one that still knows this much before recovery.
GOOD_GAIN = 0.9


@dataclass(frozen=True)
class FirstPlan:
    """A policy's first plan on a task where nothing was measured, beside the uniform plan as fast as it.

    `ratio`: latency over plain INT8's. `gain`, `uniform_gain`: what is left of the original's knowledge.
    """

    task: str
    seed: int
    ratio: float
    gain: float
    uniform_gain: float

    @property
    def above(self) -> bool:
        """True if it knows more than the uniform plan."""
        return self.gain > self.uniform_gain


@dataclass(frozen=True)
class Transfer:
    """The plan found for one target, run on another.

    `foreign_ms`: there, the plan that is the fastest good one on `of`. `own_ms`: the fastest good one found
    for that target itself.
    """

    of: str
    on: str
    seed: int
    foreign_ms: float
    own_ms: float

    @property
    def slower(self) -> float:
        """How much slower the foreign plan is, as a share: 0.33 is a third."""
        return self.foreign_ms / self.own_ms - 1.0


def probes_of(policy: Policy, probed: TrialTask, unprobed: TrialTask) -> int:
    """How many single changes a policy wants measured first: none if it proposes the same without them."""
    with_them, without = (policy.propose(task.context, [], 3) for task in (probed, unprobed))
    if with_them == without:
        return 0
    context = probed.context
    return len(changes_to_probe(context.graph, context.space))


def first_plan(policy: Policy, task: TrialTask, seed: int) -> FirstPlan | None:
    """The first plan on `task`, which must tell no effects; None where that plan or the uniform ones failed.

    The uniform plan of the same latency lies between two of one keep ratio each, on a straight line; beyond
    the narrowest it stays as good as that one.
    """
    (trial,) = run_policy(policy, task, 1, seed) or (None,)
    mine = None if trial is None else point(task, trial)
    ladder = _uniform(task)
    if mine is None or not ladder:
        return None
    ratios, gains = np.array(sorted(ladder)).T
    return FirstPlan(task.name, seed, mine[0], mine[1], float(np.interp(mine[0], ratios, gains)))


def _uniform(task: TrialTask) -> list[Point]:
    space = task.context.space
    plans = {plan.plan_id: plan for plan in (space.uniform(keep) for keep in KEEP_RATIOS)}
    found = [
        point(task, task.run(plan, 0, "uniform")) for plan in plans.values() if plan != CompressionPlan()
    ]
    return [(1.0, 1.0), *(one for one in found if one is not None)]


def transfers(policy: Policy, tasks: Sequence[TrialTask], trials: int, seed: int) -> list[Transfer]:
    """All pairs of tasks of one model and data on two targets; those without a good plan are left out."""
    best = {task.name: _fastest(task, run_policy(policy, task, trials, seed)) for task in tasks}
    found = []
    for one in tasks:
        for other in tasks:
            plan, own = best[one.name], best[other.name]
            if one is other or _model(one) != _model(other) or plan is None or own is None:
                continue
            if not other.context.space.contains(plan.plan):
                continue
            foreign = _latency_ms(other, other.run(plan.plan, 0, policy.name))
            own_ms = _latency_ms(other, own)
            if foreign is not None and own_ms is not None:
                found.append(Transfer(one.name, other.name, seed, foreign, own_ms))
    return found


def mean_slower(found: Sequence[Transfer]) -> float:
    """The geometric mean of how much slower foreign plans are."""
    return exp(sum(log(1.0 + one.slower) for one in found) / len(found)) - 1.0


def _fastest(task: TrialTask, trials: Sequence[Trial]) -> Trial | None:
    good = [(found, trial) for trial in trials if (found := point(task, trial)) and found[1] >= GOOD_GAIN]
    return min(good, key=lambda pair: pair[0][0])[1] if good else None


def _latency_ms(task: TrialTask, trial: Trial) -> float | None:
    return trial.latency_ms.get(task.context.targets[0].name)


def _model(task: TrialTask) -> str:
    return task.name.rpartition("/")[0]
