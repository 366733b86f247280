"""Plans by the multiple-choice knapsack on one-shot sensitivities; `knapsack_solver` has the recursion.

Each trial is the plan of the front that promises most: with the observed and the predicted points (latency
over plain INT8's, what is kept of what the original knows beyond chance), the next plan is the one that adds
the largest area to what is dominated. The first is so the front's knee, and the next ones fill the largest
gaps left. What was observed corrects the predictions of latency and of drop, as `effect_table` says. Once the
front is tried, plans one change away from the best outcomes come next, and at last plans at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.experience import Trial
from pipeline.pareto import pareto_front
from pipeline.plan import CompressionPlan
from pipeline.policy.area_gain import Staircase
from pipeline.policy.base import Novelty, PolicyContext
from pipeline.policy.effect_table import EffectTable, distinct, effect_table
from pipeline.policy.knapsack_solver import TOLERANCE, best_rows, good_rows
from pipeline.policy.random_search import drawn_besides
from pipeline.tables.codec import Options


class KnapsackPolicy:
    """Walks the knapsack's front of each target in turn, the most promising gap first."""

    name = "knapsack"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """The next plans of every target in turn; plans at random when all that is good was tried."""
        table, novelty = effect_table(context), Novelty(history)
        done = sum(trial.origin == self.name for trial in history)
        walks = [_Walk(context, table, target.name, history) for target in context.targets]
        plans: list[CompressionPlan] = []
        while len(plans) < count and walks:
            walk = walks[(done + len(plans)) % len(walks)]
            plan = walk.next(novelty)
            if plan is None:
                break
            plans.append(plan)
            for other in walks:
                other.expect(plan)
        return plans + drawn_besides(context, history, plans, count - len(plans))


def knapsack_row(
    context: PolicyContext,
    goal_latency_ms: float,
    history: Sequence[Trial] = (),
    target: str | None = None,
) -> Options:
    """The row of options with the least predicted drop whose predicted latency is within the goal.

    Args:
        goal_latency_ms: p50 on `target`; where no plan is predicted to reach it, the fastest comes back.
        history: corrects the predicted latencies.
        target: one of the context's, by default its first.
    """
    name = target or context.targets[0].name
    table, rows = effect_table(context), best_rows(context, name)
    latency, drop = table.latency_ms(rows, name, history), table.drop(rows)
    within = latency <= goal_latency_ms
    if not within.any():
        return np.array(rows[int(np.argmin(latency))])
    row = rows[within][int(np.lexsort((latency[within], drop[within]))[0])]
    least = float(table.drop(row[None])[0])
    while True:
        # The correction may favour another plan than the sums do.
        others = table.neighbours(row[None])
        drops = np.where(
            table.latency_ms(others, name, history) <= goal_latency_ms, table.drop(others), np.inf
        )
        if not len(drops) or drops.min() >= least - TOLERANCE:
            return np.array(row)
        row, least = others[int(drops.argmin())], float(drops.min())


def knapsack_front(
    context: PolicyContext, history: Sequence[Trial] = (), target: str | None = None
) -> list[tuple[float, float, Options]]:
    """Predicted (latency in ms, drop in points, row) of the best plans, from the fastest to the gentlest.

    None of them is the original, and none is predicted to be beaten by another in both.
    """
    name = target or context.targets[0].name
    table, rows = effect_table(context), best_rows(context, name)
    latency, drop = table.latency_ms(rows, name, history), table.drop(rows)
    front = pareto_front(list(zip(latency.tolist(), (-drop).tolist(), strict=True)))
    return [(float(latency[i]), float(drop[i]), rows[i]) for i in front]


class _Walk:
    """The plans of one target, the most promising first.

    `points`: (cost, gain) of what was tried, and of what was proposed as it is predicted.
    """

    def __init__(
        self, context: PolicyContext, table: EffectTable, target: str, history: Sequence[Trial]
    ) -> None:
        self._context, self._table, self._target = context, table, target
        self._base = context.base_latency_ms[target]
        # Without a known chance, the worst of the front stands for it.
        self._rows = _worth_trying(context, table, target, history)
        self._latency = table.latency_ms(self._rows, target, history)
        self._drop = table.corrected_drop(self._rows, history)
        span = context.drop(context.chance)
        self._span = span if span > 0.0 else max(float(self._drop.max(initial=0.0)), TOLERANCE)
        self._points = [
            (trial.latency_ms[target] / self._base, 1.0 - context.drop(accuracy) / self._span)
            for trial, _, accuracy in table.told(history)
            if target in trial.latency_ms
        ]

    def next(self, novelty: Novelty) -> CompressionPlan | None:
        """The new plan that promises most; None where all were tried."""
        for index in self._order():
            plan = self._table.codec.decode(self._rows[index])
            if novelty.admits(plan):
                return plan
        return None

    def expect(self, plan: CompressionPlan) -> None:
        """Take the plan for tried, with the outcome that is predicted."""
        row = self._table.codec.encode(plan)
        for index in np.flatnonzero((self._rows == row).all(axis=1))[:1]:
            self._points.append((self._latency[index] / self._base, 1.0 - self._drop[index] / self._span))

    def _order(self) -> Iterator[int]:
        limits = (self._most_cost(), self._context.least_gain, self._context.most_gain)
        stairs = Staircase.of(self._points, *limits)
        cost, gain = self._latency / self._base, 1.0 - self._drop / self._span
        yield from np.lexsort((stairs.shortfall(cost, gain), -stairs.added(cost, gain))).tolist()

    def _most_cost(self) -> float:
        """The share of plain INT8's latency that a plan may take."""
        budget = self._context.budget
        return min(1.0, (budget.max_latency_ms or self._base) / self._base, 1.0 / (budget.min_speedup or 1.0))


def _worth_trying(
    context: PolicyContext, table: EffectTable, target: str, history: Sequence[Trial]
) -> Options:
    """Rows near the knapsack's front, and single changes to the best that were tried."""
    seen = [
        (trial.latency_ms[target], -context.drop(accuracy), row)
        for trial, row, accuracy in table.told(history)
        if target in trial.latency_ms
    ]
    front = pareto_front([(latency, gain) for latency, gain, _ in seen])
    rows = good_rows(context, target)
    if front:
        rows = np.concatenate([rows, table.neighbours(np.stack([seen[index][2] for index in front]))])
    return distinct(rows)
