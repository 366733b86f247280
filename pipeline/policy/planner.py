"""Proposes plans by a plan-value network that was adapted to what the task's trials have shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Novelty, PolicyContext
from pipeline.policy.knapsack_solver import best_rows
from pipeline.policy.plan_features import PlanFeatures
from pipeline.policy.plan_search import Outlook, PlanSearch, Wanted
from pipeline.policy.plan_value import Parameters, PlanBatch, trusted
from pipeline.policy.residual_kernel import GAIN_NOISE, Errors, ResidualKernel
from pipeline.tables.codec import Options, PlanCodec

# A trial that knows less than chance teaches no more than one at chance.
LEAST_SEEN_GAIN, MOST_SEEN_GAIN = 0.02, 0.995
LEAST_TOTAL = 1e-3
# So many best candidates are brought into normal form and looked at again.
FINALISTS = 24
# When the best were tried: so often their neighbours are looked at, and then so many plans at random.
NEIGHBOURHOODS = 4
LAST_DRAWS = 500
# So many of the last trials the network adapts to.
MOST_SUPPORT = 24
# The sums of effects follow the trials already; of what the kernel would correct besides, half is right. Half
# did better than all and none on families left out of training.
KERNEL_TRUST = 0.5

Vector = NDArray[np.float64]
Adapt = Callable[[PlanBatch], Parameters]


@dataclass(frozen=True)
class Trained:
    """What was meta-learned besides the network's parameters.

    `kernels`: of what is predicted wrong, of ln T and of ln r. `trust`: how much of the network's corrections
    to measured single effects counts.
    """

    kernels: tuple[ResidualKernel, ResidualKernel]
    trust: float


@dataclass(frozen=True)
class Planner:
    """One task, seen from one target.

    Args:
        adapt: parameters after learning from a support set; the meta-learned ones where it is empty.
        trained: what was meta-learned.
    """

    context: PolicyContext
    target: str
    adapt: Adapt
    trained: Trained

    def propose(self, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` new plans; each one counts as tried, with the outcome predicted, for the next."""
        codec = PlanCodec(self.context.space)
        features = PlanFeatures.of(self.context, self.target, self.context.chance, codec)
        tried = self._tried(codec, history)
        outcomes = Forecast.of(self.adapt, self.trained, features, tried)
        search = PlanSearch(codec, outcomes.outlook, self.context.seed + len(history))
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

    def _tried(self, codec: PlanCodec, history: Sequence[Trial]) -> Tried:
        trials, rows, gains, costs = [], [], [], []
        for trial in history:
            speedup = self.context.speedup(trial, self.target)
            told = trial.accuracy is not None and isfinite(trial.accuracy) and trial.failure is None
            if not told or speedup is None or not self.context.space.contains(trial.plan):
                continue
            trials.append(trial)
            rows.append(codec.encode(trial.plan))
            gains.append(min(MOST_SEEN_GAIN, max(LEAST_SEEN_GAIN, self.context.gain(trial.accuracy or 0.0))))
            costs.append(1.0 / speedup)
        table = np.stack(rows) if rows else np.zeros((0, len(codec.positions)), np.int16)
        return Tried(tuple(trials), table, np.array(gains), np.array(costs))

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

    def support(self, features: PlanFeatures) -> tuple[Options, PlanBatch]:
        """The last of them, each as it looked when only the others were known: rows and batch."""
        rows, trials = self.rows[-MOST_SUPPORT:], self.trials[-MOST_SUPPORT:]
        batch = PlanBatch.of(features, rows).after_each_other(features, rows, trials)
        return rows, batch.with_outcomes(self.gains[-MOST_SUPPORT:], np.log(self.costs[-MOST_SUPPORT:]))


@dataclass(frozen=True)
class Forecast:
    """A plan-value network that was adapted, corrected by what its errors on the task's trials say."""

    parameters: Parameters
    trained: Trained
    features: PlanFeatures
    trials: tuple[Trial, ...]
    errors: tuple[Errors, Errors]

    @classmethod
    def of(
        cls,
        adapt: Adapt,
        trained: Trained,
        features: PlanFeatures,
        tried: Tried,
    ) -> Forecast:
        """The forecast after trials."""
        if not len(tried.rows):
            batch = PlanBatch.of(features, tried.rows)
            parameters = adapt(batch)
            errors = errors_of(parameters, trained.trust, features, (tried.rows, batch))
            return cls(parameters, trained, features, (), errors)
        rows, support = tried.support(features)
        parameters = adapt(support)
        errors = errors_of(parameters, trained.trust, features, (rows, support))
        return cls(parameters, trained, features, tried.trials, errors)

    def outlook(self, rows: Options) -> Outlook:
        """What plans [n, positions] are predicted to do."""
        batch = PlanBatch.of(self.features, rows, self.trials)
        with torch.no_grad():
            total, log_ratio, damage = trusted(self.parameters, batch, self.trained.trust)
        roots, leaving = damage.double().sqrt().numpy(), 1.0 - self.features.codec.keep_of(rows)
        wrong, spread = self.trained.kernels[0].posterior(self.errors[0], roots, leaving)
        slow, _ = self.trained.kernels[1].posterior(self.errors[1], roots, leaving)
        return Outlook(
            total.double().numpy() * np.exp(KERNEL_TRUST * wrong),
            KERNEL_TRUST * spread,
            np.exp(log_ratio.double().numpy() + KERNEL_TRUST * slow),
        )


def errors_of(
    parameters: Parameters, trust: float, features: PlanFeatures, plans: tuple[Options, PlanBatch]
) -> tuple[Errors, Errors]:
    """What is predicted wrong of plans (rows and batch) whose outcomes are known: of ln T, and of ln r."""
    rows, outcomes = plans
    with torch.no_grad():
        total, log_ratio, damage = trusted(parameters, outcomes, trust)
    roots, leaving = damage.double().sqrt().numpy(), 1.0 - features.codec.keep_of(rows)
    true = -np.log(np.clip(outcomes.gain.double().numpy(), LEAST_SEEN_GAIN, MOST_SEEN_GAIN))
    wrong = np.log(true) - np.log(total.double().numpy() + LEAST_TOTAL)
    slow = (outcomes.log_ratio - log_ratio).double().numpy()
    return (
        Errors(roots, leaving, wrong, GAIN_NOISE / true),
        Errors(roots, leaving, slow, np.zeros(len(slow))),
    )


def _order(wanted: Wanted, outlook: Outlook) -> NDArray[np.int64]:
    """Places by falling growth, those of equal growth by rising damage."""
    order: NDArray[np.int64] = np.lexsort((outlook.total, -wanted.growth(outlook)))
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
