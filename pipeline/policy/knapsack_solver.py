"""The multiple-choice knapsack on one-shot sensitivities: for every latency the plan that costs least.

One option a position, so that the predicted drop is least and the predicted saving at least what is asked:

    min sum over stages (sum_{i in stage} d_i(o_i)^p)^(1/p)   subject to   sum_i s_i(o_i) >= S

With savings rounded to `BINS` steps it is solved for all S at once by dynamic programming: d^p adds up within
a stage, and stages add up; a block's group is either the block removed, or its units' options (Sinha and
Zoltners, Operations Research 1979, for the problem; Kellerer et al., Knapsack Problems, 2004, 11.5, for the
recursion). What the sums leave out, `EffectTable` knows: links between widths, and units that lie partly in
removed blocks. So the answers are then improved by single changes under it until none helps any saving.

Without probes the effects are guesses from sizes and latency shares (`guessed_effects`), and so is the front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.policy.base import PolicyContext
from pipeline.policy.effect_table import EffectTable, Vector, distinct, effect_table
from pipeline.tables.codec import Options

BINS = 160
# Improving ends when nothing gets better; this many rounds were never needed.
ROUNDS = 30
# Differences of predicted drops below this are rounding.
TOLERANCE = 1e-9
# So many rows of each saving are near enough to the best one to be worth a trial.
RUNNERS_UP = 6


def best_rows(context: PolicyContext, target: str) -> Options:
    """For each of many savings on `target` the row with the least predicted drop, the original left out."""
    table = effect_table(context)
    return table.kept(("knapsack", target), lambda: _improved(table, target, _solved(table, target)))


def good_rows(context: PolicyContext, target: str) -> Options:
    """The best rows and, for each saving, those single changes to them that cost the least."""
    table = effect_table(context)
    return table.kept(("near the knapsack's", target), lambda: _runners_up(table, target))


def _runners_up(table: EffectTable, target: str) -> Options:
    best = best_rows(table.context, target)
    if not len(best):
        return best
    rows = distinct(np.concatenate([best, table.neighbours(best)]))
    saved = table.saved(rows, target).sum(axis=1)
    bins = np.floor(saved * (BINS / saved.max())).astype(np.int64)
    order = np.lexsort((table.drop(rows), bins))
    rank = np.arange(len(rows)) - np.searchsorted(bins[order], bins[order])
    taken = order[(rank < RUNNERS_UP) & (saved[order] > 0.0)]
    return np.asarray(rows[taken])


@dataclass(frozen=True)
class _Sums:
    """The best rows by their sums: least cost for each saving in bins [bins + 1], and how it is reached."""

    cost: Vector
    rows: Options

    @classmethod
    def nothing(cls, positions: int) -> _Sums:
        """Nothing changed: a saving of 0 for free."""
        cost = np.full(BINS + 1, np.inf)
        cost[0] = 0.0
        return cls(cost, np.zeros((BINS + 1, positions), dtype=np.int16))

    def with_choice(
        self, place: int, costs: Vector, bins: NDArray[np.int64], legal: NDArray[np.bool_]
    ) -> _Sums:
        """After one position more, by its options' costs and savings in bins."""
        taken = [0, *np.flatnonzero(legal & (bins > 0)).tolist()]
        options = np.stack([_shifted(self.cost, int(bins[o])) + costs[o] for o in taken])
        best = options.argmin(axis=0)
        chosen = np.array(taken)[best]
        rows = self.rows[np.maximum(0, np.arange(BINS + 1) - bins[chosen])]
        rows[:, place] = chosen
        return _Sums(options.min(axis=0), rows)

    def joined(self, other: _Sums) -> _Sums:
        """Both at once, each saving split between them as costs least."""
        split = np.arange(BINS + 1)
        rest = split[:, None] - split[None, :]
        costs = np.where(rest >= 0, other.cost[np.maximum(rest, 0)], np.inf) + self.cost[None, :]
        best = costs.argmin(axis=1)
        rows = self.rows[best] + other.rows[split - best]
        return _Sums(costs.min(axis=1), rows)


def _solved(table: EffectTable, target: str) -> Options:
    """The rows that are best by the sums alone, one for each saving that can be reached."""
    savings = table.savings(target)
    legal = table.allowed & (savings > 0.0)
    legal[:, 0] = True
    most = np.where(legal, savings, 0.0).max(axis=1).sum()
    bins = np.rint(np.where(legal, savings, 0.0) * (BINS / max(most, 1e-12))).astype(np.int64)
    powers = table.powers
    whole = _Sums.nothing(len(bins))
    for stage in np.unique(table.stages):
        part = _Sums.nothing(len(bins))
        for place, position in enumerate(table.codec.positions):
            if table.stages[place] == stage and position.inside < 0:
                inside = np.flatnonzero(table.codec.inside == place)
                if not position.is_block:
                    part = part.with_choice(place, powers[place], bins[place], legal[place])
                else:
                    part = part.joined(_group(place, inside, powers, bins, legal))
        whole = whole.joined(_Sums(part.cost**table.to_points, part.rows))
    return distinct(table.codec.normal(whole.rows[np.isfinite(whole.cost)]))


def _group(
    block: int,
    inside: NDArray[np.int64],
    powers: Vector,
    bins: NDArray[np.int64],
    legal: NDArray[np.bool_],
) -> _Sums:
    """A block: its units' options, or all of it removed."""
    group = _Sums.nothing(len(bins))
    for place in inside:
        group = group.with_choice(int(place), powers[place], bins[place], legal[place])
    saved = int(bins[block, 1])
    if legal[block, 1] and saved > 0 and powers[block, 1] < group.cost[saved]:
        group.cost[saved] = powers[block, 1]
        group.rows[saved] = 0
        group.rows[saved, block] = 1
    return group


def _improved(table: EffectTable, target: str, rows: Options) -> Options:
    """Rows after single changes under the whole prediction, until no saving has a lesser drop."""
    base = table.context.base_latency_ms[target]
    most = max(float(table.saved(rows, target).sum(axis=1).max(initial=0.0)), 1e-9 * base)
    best: dict[int, tuple[float, Options]] = {}
    fresh = rows
    for _ in range(ROUNDS):
        saved, drops = table.saved(fresh, target).sum(axis=1), table.drop(fresh)
        bins = np.floor(saved * (BINS / most)).astype(np.int64)
        changed = []
        for index in np.lexsort((-saved, drops)):
            known = best.get(int(bins[index]))
            if saved[index] > 0.0 and (known is None or drops[index] < known[0] - TOLERANCE):
                best[int(bins[index])] = (float(drops[index]), fresh[index])
                changed.append(fresh[index])
        if not changed:
            break
        fresh = table.neighbours(np.stack(changed))
    ordered = [best[place][1] for place in sorted(best)]
    return np.stack(ordered) if ordered else rows[:0]


def _shifted(cost: Vector, bins: int) -> Vector:
    if bins == 0:
        return cost
    moved = np.full_like(cost, np.inf)
    moved[bins:] = cost[:-bins] if bins <= BINS else []
    return moved
