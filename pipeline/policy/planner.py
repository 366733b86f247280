"""Proposes plans by a plan-value network that was adapted to what the task's trials have shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Novelty, PolicyContext
from pipeline.policy.plan_features import PlanFeatures
from pipeline.policy.plan_search import PlanSearch, Wanted
from pipeline.policy.plan_value import Parameters, PlanBatch, predict
from pipeline.tables.codec import Options, PlanCodec

# A trial that knows less than chance teaches no more than one at chance.
LEAST_SEEN_GAIN = 0.02
# So many best candidates are brought into normal form and looked at again.
FINALISTS = 24

Adapt = Callable[[PlanBatch], Parameters]


@dataclass(frozen=True)
class Planner:
    """One task, seen from one target.

    Args:
        adapt: parameters after learning from a support set; the meta-learned ones where it is empty.
        spread: standard deviation of ln T by how many trials were learned from, ascending.
    """

    context: PolicyContext
    target: str
    adapt: Adapt
    spread: Mapping[int, float]

    def propose(self, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` new plans; each one counts as tried, with the outcome predicted, for the next."""
        codec = PlanCodec(self.context.space)
        features = PlanFeatures.of(self.context, self.target, self.context.chance, codec)
        rows, gains, costs = self._tried(codec, history)
        support = PlanBatch.of(features, rows, gains, np.log(costs))
        parameters = self.adapt(support)
        search = PlanSearch(codec, _predictor(parameters, features), self.context.seed + len(history))
        found, total, cost = search.candidates(rows)
        front = list(zip(costs.tolist(), gains.tolist(), strict=True))
        novelty = Novelty(history)
        plans: list[CompressionPlan] = []
        while len(plans) < count:
            best = self._best(search, (found, total, cost), self._wanted(front, len(rows)), novelty)
            if best is None:
                break
            plan, at, damage = best
            plans.append(plan)
            front.append((at, float(np.exp(-damage))))
        return plans

    def _best(
        self,
        search: PlanSearch,
        candidates: tuple[Options, np.ndarray, np.ndarray],
        wanted: Wanted,
        novelty: Novelty,
    ) -> tuple[CompressionPlan, float, float] | None:
        """The new plan of the most expected growth; where none grows, the one predicted least damaged."""
        rows, total, cost = candidates
        order = np.lexsort((total, -wanted.growth(total, cost)))[:FINALISTS]
        normal = search.codec.normal(rows[order])
        total, cost = search.predict(normal)
        for place in np.lexsort((total, -wanted.growth(total, cost))):
            plan = search.codec.decode(normal[place])
            if novelty.admits(plan):
                return plan, float(cost[place]), float(total[place])
        return self._another(search, rows, wanted, novelty)

    def _another(
        self, search: PlanSearch, rows: Options, wanted: Wanted, novelty: Novelty
    ) -> tuple[CompressionPlan, float, float] | None:
        """A plan near the candidates, when those were all tried."""
        rng = np.random.default_rng((self.context.seed, len(wanted.front)))
        for _ in range(4):
            near = search.codec.normal(search.neighbours(rows, rng))
            total, cost = search.predict(near)
            for place in np.lexsort((total, -wanted.growth(total, cost))):
                plan = search.codec.decode(near[place])
                if novelty.admits(plan):
                    return plan, float(cost[place]), float(total[place])
        for _ in range(500):
            plan = self.context.space.sample(rng)
            if novelty.admits(plan):
                total, cost = search.predict(search.codec.encode(plan)[None])
                return plan, float(cost[0]), float(total[0])
        return None

    def _tried(self, codec: PlanCodec, history: Sequence[Trial]) -> tuple[Options, np.ndarray, np.ndarray]:
        """Rows, gains and latency ratios of trials that tell, [n, positions], [n], [n]."""
        rows, gains, costs = [], [], []
        for trial in history:
            speedup = self.context.speedup(trial, self.target)
            told = trial.accuracy is not None and isfinite(trial.accuracy) and trial.failure is None
            if not told or speedup is None or not self.context.space.contains(trial.plan):
                continue
            rows.append(codec.encode(trial.plan))
            gains.append(min(1.0, max(LEAST_SEEN_GAIN, self.context.gain(float(trial.accuracy or 0.0)))))
            costs.append(1.0 / speedup)
        table = np.stack(rows) if rows else np.zeros((0, len(codec.positions)), np.int16)
        return table, np.array(gains), np.array(costs)

    def _wanted(self, front: Sequence[tuple[float, float]], seen: int) -> Wanted:
        budget, base = self.context.budget, self.context.base_latency_ms[self.target]
        limits = [1.0, (budget.max_latency_ms or base) / base, 1.0 / (budget.min_speedup or 1.0)]
        spread = [value for trials, value in sorted(self.spread.items()) if trials <= seen]
        return Wanted(front, min(limits), self.context.least_gain, spread[-1])


def _predictor(
    parameters: Parameters, features: PlanFeatures
) -> Callable[[Options], tuple[np.ndarray, np.ndarray]]:
    def answer(rows: Options) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            total, log_ratio = predict(parameters, PlanBatch.of(features, rows))
        return total.double().numpy(), np.exp(log_ratio.double().numpy())

    return answer
