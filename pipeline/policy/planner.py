"""Proposes the plans that are expected to enlarge the front most, by whatever predicts their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from device_bench.protocol import Failure, FailureKind
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Novelty, PolicyContext
from pipeline.policy.knapsack_solver import best_rows
from pipeline.policy.plan_search import Outlook, PlanSearch, Predict, Wanted
from pipeline.tables.codec import Options, PlanCodec

# A trial that knows less than chance teaches no more than one at chance.
LEAST_SEEN_GAIN, MOST_SEEN_GAIN = 0.02, 0.995
# So many best candidates are brought into normal form and looked at again.
FINALISTS = 24
# When the best were tried: so often their neighbours are looked at, and then so many plans at random.
NEIGHBOURHOODS = 4
LAST_DRAWS = 500

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Planner:
    """One task, seen from one target.

    Args:
        predict_after: what is expected of plans once some were tried.
    """

    context: PolicyContext
    target: str
    predict_after: Callable[[PlanCodec, Tried], Predict]

    def propose(self, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` new plans; each one counts as tried, with the outcome predicted, for the next."""
        codec = PlanCodec(self.context.space)
        tried = tried_of(self.context, self.target, codec, history)
        search = PlanSearch(codec, self.predict_after(codec, tried), self.context.seed + len(history))
        # The knapsack's plans are where the search sets out from, beside what was tried.
        known = np.concatenate([tried.rows, best_rows(self.context, self.target)])
        candidates = search.candidates(known)
        front = list(zip(tried.costs.tolist(), tried.gains.tolist(), strict=True))
        novelty = Novelty(history)
        plans: list[CompressionPlan] = []
        while len(plans) < count:
            best = self._best(search, candidates, self._wanted(front), novelty)
            if best is None:
                break
            plans.append(best[0])
            front.append(best[1])
        return plans

    def _best(
        self, search: PlanSearch, candidates: tuple[Options, Outlook], wanted: Wanted, novelty: Novelty
    ) -> tuple[CompressionPlan, tuple[float, float]] | None:
        """The new plan of most expected growth, and where it is predicted to lie; at last one at random."""
        rows, outlook = candidates
        best = _order(wanted, outlook)[:FINALISTS]
        found = _first_new(search, wanted, search.codec.normal(rows[best]), novelty)
        rng = np.random.default_rng((self.context.seed, len(wanted.front)))
        for _ in range(NEIGHBOURHOODS):
            if found is not None:
                return found
            near = search.codec.normal(search.neighbours(rows, rng))
            found = _first_new(search, wanted, near, novelty)
        drawn = [self.context.space.sample(rng) for _ in range(LAST_DRAWS)] if found is None else []
        new = next((plan for plan in drawn if novelty.admits(plan)), None)
        if new is None:
            return found
        row = search.codec.encode(new)[None]
        return new, _point(search.predict(row), 0)

    def _wanted(self, front: Sequence[tuple[float, float]]) -> Wanted:
        budget, base = self.context.budget, self.context.base_latency_ms[self.target]
        limits = [1.0, (budget.max_latency_ms or base) / base, 1.0 / (budget.min_speedup or 1.0)]
        return Wanted(front, min(limits), self.context.least_gain, self.context.most_gain)


@dataclass(frozen=True)
class Tried:
    """Trials that tell: their rows [n, positions], gains [n] and latency ratios [n]."""

    trials: tuple[Trial, ...]
    rows: Options
    gains: Vector
    costs: Vector


def tried_of(context: PolicyContext, target: str, codec: PlanCodec, history: Sequence[Trial]) -> Tried:
    """What the trials of `history` tell about `target`; failed ones and plans of other spaces do not."""
    trials, rows, gains, costs = [], [], [], []
    for trial in history:
        speedup = context.speedup(trial, target)
        told = trial.accuracy is not None and isfinite(trial.accuracy) and trial.failure is None
        if not told or speedup is None or not context.space.contains(trial.plan):
            continue
        trials.append(trial)
        rows.append(codec.encode(trial.plan))
        gains.append(min(MOST_SEEN_GAIN, max(LEAST_SEEN_GAIN, context.gain(trial.accuracy or 0.0))))
        costs.append(1.0 / speedup)
    table = np.stack(rows) if rows else np.zeros((0, len(codec.positions)), np.int16)
    return Tried(tuple(trials), table, np.array(gains), np.array(costs))


def _order(wanted: Wanted, outlook: Outlook) -> NDArray[np.int64]:
    """Places by falling growth, those of equal growth by how near the front they are."""
    order: NDArray[np.int64] = np.lexsort((wanted.shortfall(outlook), -wanted.growth(outlook)))
    return order


def _first_new(
    search: PlanSearch, wanted: Wanted, rows: Options, novelty: Novelty
) -> tuple[CompressionPlan, tuple[float, float]] | None:
    """The best of rows in normal form that was not tried, and where it is predicted to lie."""
    outlook = search.predict(rows)
    for place in _order(wanted, outlook):
        plan = search.codec.decode(rows[place])
        if novelty.admits(plan):
            return plan, _point(outlook, int(place))
    return None


def _point(outlook: Outlook, place: int) -> tuple[float, float]:
    return float(outlook.cost[place]), float(np.exp(-outlook.total[place]))


def in_turn(
    context: PolicyContext,
    history: Sequence[Trial],
    count: int,
    origin: str,
    planner_for: Callable[[str], Planner],
) -> list[CompressionPlan]:
    """Up to `count` new plans, of each target's planner in turn."""
    plans: list[CompressionPlan] = []
    seen = list(history)
    while len(plans) < count:
        target = context.targets[len(seen) % len(context.targets)].name
        wanted = count - len(plans) if len(context.targets) == 1 else 1
        new = planner_for(target).propose(seen, wanted)
        if not new:
            break
        plans += new
        # A plan that waits for its trial must not be proposed for the next target again.
        seen += [_waiting(plan, len(seen) + place, origin) for place, plan in enumerate(new)]
    return plans


def _waiting(plan: CompressionPlan, number: int, origin: str) -> Trial:
    """A trial that has not come back yet: it teaches nothing, and its plan is taken."""
    failure = Failure(kind=FailureKind.CANCELLED, message="waits for its turn")
    return Trial(number=number, plan=plan, origin=origin, failure=failure)
