"""Greedy by sensitivity: for each target, the changes that save most time for what they cost in accuracy.

After NetAdapt (Yang et al., ECCV 2018): from the whole model, take the single change with the best latency
saved per accuracy lost, again and again; for a wanted speed-up take the first plan of that path that reaches
it, then change single things back while it still does. `effect_model` says how the effects of single changes
combine. Each target has a ladder of speed-ups (rungs). Once they are tried the search goes on between tried
ones: half-way where the accuracy budget separates them, and half-way where most area lies between two
neighbours of the front, in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, log, sqrt
from statistics import median

import numpy as np

from pipeline.experience import Trial
from pipeline.pareto import pareto_front
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Novelty, PolicyContext
from pipeline.policy.effect_table import EffectTable, Vector, distinct, effect_table
from pipeline.policy.random_search import drawn_besides
from pipeline.tables.codec import Options

SLOWEST_RUNG = 1.2
FASTEST_RUNG = 3.0
# Where on the ladder (as logarithms) the rungs are, in the order they are tried: the first few tell most.
RUNG_ORDER = (0.5, 0.8, 0.2, 0.65, 0.35, 1.0, 0.0)
# Points of accuracy that a probe cannot tell from nothing; keeps free changes from looking infinitely good.
LEAST_DROP = 0.1
# The share of a drop that recovery wins back, until trials of the task tell (ResNet-20: 0.9 and more).
RECOVERED_SHARE = 0.9
# How much faster than the fastest that was tried it may get.
BEYOND = 1.3
# Neighbours closer than this (fast over slow) have nothing worth a trial between them.
NARROWEST_GAP = 1.01
# Differences below this are rounding.
TOLERANCE = 1e-9

# Two speed-ups between which no plan was tried: (slow, fast).
Gap = tuple[float, float]


class GreedyPolicy:
    """One path of best changes for each target; trials are the places where it passes the rungs."""

    name = "greedy"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """The next rungs of every target in turn, then what lies between; at last plans at random."""
        novelty = Novelty(history)
        done = sum(trial.origin == self.name for trial in history)
        climbs = [_Climb.of(context, target.name, history) for target in context.targets]
        plans: list[CompressionPlan] = []
        while len(plans) < count:
            turn, which = divmod(done + len(plans), len(climbs))
            plan = climbs[which].next(novelty, turn)
            if plan is None:
                break
            plans.append(plan)
            for climb in climbs:
                climb.expect(plan)
        return plans + drawn_besides(context, history, plans, count - len(plans))


@dataclass
class _Climb:
    """The search on one target.

    `points`: (speed-up, drop after recovery, share of what is known that is left before it) of tried plans.
    `best`: rows of the tried plans that no other beats.
    """

    context: PolicyContext
    table: EffectTable
    target: str
    history: Sequence[Trial]
    recovered_share: float
    points: list[tuple[float, float, float]]
    best: Options

    @classmethod
    def of(cls, context: PolicyContext, target: str, history: Sequence[Trial]) -> _Climb:
        table = effect_table(context)
        share = _recovered_share(context, history)
        told = [
            (speedup, drop, context.gain(accuracy), row)
            for trial, row, accuracy in table.told(history)
            if (speedup := context.speedup(trial, target)) is not None
            and (drop := _final_drop(context, trial, share)) is not None
        ]
        front = pareto_front([(-speedup, gain) for speedup, _, gain, _ in told])
        rows = np.stack([told[index][3] for index in front]) if front else _path(table, target)[:0]
        return cls(context, table, target, history, share, [point[:3] for point in told], rows)

    def next(self, novelty: Novelty, turn: int) -> CompressionPlan | None:
        """The new plan that is wanted most; None where everything near was tried."""
        for row in self._rows(turn):
            plan = self.table.codec.decode(row)
            if novelty.admits(plan):
                return plan
        return None

    def _rows(self, turn: int) -> Iterator[Options]:
        """Rows, the most wanted first: the rung whose turn it is, what lies between tried ones, all near."""
        for rung in self._ladder()[turn:]:
            yield from self._reaching(rung)
        crossing, area = self._near_the_budget(), self._largest_gaps()
        gaps = [*area, *crossing] if turn % 2 else [*crossing, *area]
        for slow, fast in gaps[:1]:
            yield from self._reaching(sqrt(slow * fast))
        rows, latency, worth = self._around()
        for slow, fast in gaps:
            inside = (latency < self._base / slow) & (latency > self._base / fast)
            yield from rows[inside]
        yield from rows[np.argsort(worth, kind="stable")]

    def expect(self, plan: CompressionPlan) -> None:
        """Take the plan for tried, with the outcome that is predicted."""
        row = self.table.codec.encode(plan)[None]
        latency = float(self.table.latency_ms(row, self.target, self.history)[0])
        drop = float(self.table.corrected_drop(row, self.history)[0])
        span = self.context.drop(self.context.chance)
        gain = 1.0 - drop / span if span > 0 else 0.0
        self.points.append((self._base / latency, drop * (1.0 - self.recovered_share), gain))

    def _ladder(self) -> list[float]:
        """The rungs as speed-ups over plain INT8, in the order they are tried."""
        path = _path(self.table, self.target)
        if not len(path):
            return []
        wanted = 1.0 / self._most_cost()
        latency = self.table.latency_ms(path, self.target, self.history)
        drop = self.table.corrected_drop(path, self.history)
        worth = drop <= (1.0 - self.context.least_gain) * self.context.drop(self.context.chance)
        reach = self._base / float(latency.min())
        # Beyond what is worth a trial there is no rung, unless the budget asks for it.
        useful = self._base / float(latency[worth].min()) if worth.any() else reach
        fastest = min(max(min(FASTEST_RUNG, useful), 1.5 * wanted if wanted > 1.0 else 1.0), reach)
        slowest = min(max(SLOWEST_RUNG, wanted), fastest)
        return [slowest * (fastest / slowest) ** place for place in RUNG_ORDER]

    def _near_the_budget(self) -> list[Gap]:
        """Neighbours of the tried front by speed-up, those near the accuracy budget first."""
        points = [(1.0, 0.0), *((speedup, drop) for speedup, drop, _ in self.points)]
        # Cost is the drop, gain the speed-up: so the front goes from the gentlest plan to the fastest.
        front = [points[i] for i in pareto_front([(drop, speedup) for speedup, drop in points])]
        front.append((front[-1][0] * BEYOND, float("inf")))
        limit = self.context.budget.max_drop
        crossing = next(log(slow * fast) for (slow, _), (fast, drop) in pairwise(front) if drop > limit)
        gaps = [(slow, fast) for (slow, _), (fast, _) in pairwise(front) if fast / slow > NARROWEST_GAP]
        return sorted(gaps, key=lambda gap: abs(log(gap[0] * gap[1]) - crossing))

    def _largest_gaps(self) -> list[Gap]:
        """Neighbours of the tried front by speed-up, those with most area between them first."""
        least, most = self.context.least_gain, self._most_cost()
        inside = [(1.0 / s, g) for s, _, g in self.points if 1.0 / s < most and g > least]
        front = [inside[i] for i in pareto_front(inside)]
        if not front:
            return []
        steps = [(front[0][0] / BEYOND, least), *front, (most, 1.0)]
        gaps = sorted(pairwise(steps), key=lambda gap: (gap[0][0] - gap[1][0]) * (gap[1][1] - gap[0][1]))
        return [(1.0 / high, 1.0 / low) for (low, _), (high, _) in gaps if high / low > NARROWEST_GAP]

    def _reaching(self, speedup: float) -> Options:
        """The first plan of the path that reaches the speed-up, changed singly while that loses less.

        One row [1, positions], or none where the path does not reach it.
        """
        goal = self._base / speedup
        path = _path(self.table, self.target)
        within = np.flatnonzero(self.table.latency_ms(path, self.target, self.history) <= goal)
        row = path[within[:1]]
        while len(row):
            others = self.table.neighbours(row)
            fits = self.table.latency_ms(others, self.target, self.history) <= goal
            drops = np.where(fits, self.table.drop(others), np.inf)
            if not len(drops) or drops.min() >= self.table.drop(row)[0] - TOLERANCE:
                break
            row = others[[int(drops.argmin())]]
        return row

    def _around(self) -> tuple[Options, Vector, Vector]:
        """Plans of the path and single changes to the best tried, those that lose least first.

        Rows, their latencies, and what they lose for the time they save.
        """
        rows = distinct(np.concatenate([_path(self.table, self.target), self.table.neighbours(self.best)]))
        drop = self.table.corrected_drop(rows, self.history)
        rows, drop = rows[np.argsort(drop, kind="stable")], np.sort(drop)
        latency = self.table.latency_ms(rows, self.target, self.history)
        return rows, latency, (LEAST_DROP + drop) / np.maximum(TOLERANCE, self._base - latency)

    def _most_cost(self) -> float:
        """The share of plain INT8's latency that the budget allows."""
        budget = self.context.budget
        return min(1.0, (budget.max_latency_ms or self._base) / self._base, 1.0 / (budget.min_speedup or 1.0))

    @property
    def _base(self) -> float:
        return self.context.base_latency_ms[self.target]


def _path(table: EffectTable, target: str) -> Options:
    """Rows from the first change to the last that still saves time, each one change further."""
    return table.kept(("greedy path", target), lambda: _climbed(table, target))


def _climbed(table: EffectTable, target: str) -> Options:
    row = np.zeros(len(table.codec.positions), dtype=np.int16)
    path = [row]
    while True:
        others = table.neighbours(path[-1][None])
        if not len(others):
            break
        here = path[-1][None]
        saved = table.saved(others, target).sum(axis=1) - table.saved(here, target).sum()
        lost = table.drop(others) - table.drop(here)
        value = np.where(saved > TOLERANCE, saved / np.maximum(lost, LEAST_DROP), -np.inf)
        if not np.isfinite(value.max()):
            break
        path.append(others[int(value.argmax())])
    return np.stack(path)[1:] if len(path) > 1 else row[None][:0]


def _recovered_share(context: PolicyContext, history: Sequence[Trial]) -> float:
    """What share of a drop recovery won back in this task; `RECOVERED_SHARE` before it is known."""
    shares = [
        1.0 - max(0.0, context.drop(trial.accuracy_recovered)) / context.drop(trial.accuracy)
        for trial in history
        if trial.accuracy is not None
        and trial.accuracy_recovered is not None
        and isfinite(trial.accuracy_recovered)
        and context.drop(trial.accuracy) > LEAST_DROP
    ]
    return median(shares) if shares else RECOVERED_SHARE


def _final_drop(context: PolicyContext, trial: Trial, recovered_share: float) -> float | None:
    """The drop after recovery, expected where it was not tried; None for a failed trial."""
    if trial.accuracy_recovered is not None and isfinite(trial.accuracy_recovered):
        return context.drop(trial.accuracy_recovered)
    if trial.accuracy is None or trial.failure is not None or not isfinite(trial.accuracy):
        return None
    return context.drop(trial.accuracy) * (1.0 - recovered_share)
