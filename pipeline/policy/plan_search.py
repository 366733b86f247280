"""Searches the space for the plan that would enlarge the front most, by a model that answers at once.

For each of many latencies the plan of the highest predicted gain is kept (an archive as in Mouret and Clune,
"Illuminating search spaces by mapping elites", 2015); children are crossed and mutated elites. Candidates are
then held against the front of what was tried: wanted is the expected growth of its hypervolume, with the
predicted damage T uncertain by a log-normal factor and latency by a normal term (Gauss-Hermite quadrature).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.policy.area_gain import Staircase
from pipeline.tables.codec import Options, PlanCodec

Vector = NDArray[np.float64]

BINS = 48
ROUNDS = 14
CHILDREN = 96
PRICES = np.exp(np.linspace(np.log(0.02), np.log(20.0), 24))
# Nodes and weights of Gauss-Hermite quadrature for a standard normal variable: of damage, and of latency.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_COST_NODES, _COST_WEIGHTS = np.polynomial.hermite_e.hermegauss(3)
LEAST_COST = 0.02


@dataclass(frozen=True)
class Outlook:
    """What plans are predicted to do, float64 [n] each.

    `total`: damage T. `spread`: standard deviation of ln T. `cost`: latency over plain INT8's. `cost_spread`:
    its standard deviation.
    """

    total: Vector
    spread: Vector
    cost: Vector
    cost_spread: Vector

    def take(self, index: NDArray[np.int64]) -> Outlook:
        """The plans at `index`."""
        return Outlook(self.total[index], self.spread[index], self.cost[index], self.cost_spread[index])

    def joined(self, other: Outlook) -> Outlook:
        """These and then the others."""
        pairs = (
            (self.total, other.total),
            (self.spread, other.spread),
            (self.cost, other.cost),
            (self.cost_spread, other.cost_spread),
        )
        return Outlook(*(np.concatenate(pair) for pair in pairs))


Predict = Callable[[Options], Outlook]


@dataclass(frozen=True)
class Wanted:
    """What counts as better.

    `front`: (cost, gain) of what was tried, cost being latency over plain INT8's. A plan of more than
    `most_cost`, or of less than `least_gain`, adds nothing, and more than `most_gain` counts as that.
    """

    front: Sequence[tuple[float, float]]
    most_cost: float = 1.0
    least_gain: float = 0.5
    most_gain: float = 1.0

    def growth(self, outlook: Outlook) -> Vector:
        """Expected growth of the hypervolume by each plan, float64 [n]."""
        expected: Vector = np.zeros(len(outlook.cost))
        for node, weight in zip(_NODES, _WEIGHTS / _WEIGHTS.sum(), strict=True):
            gain = np.exp(-outlook.total * np.exp(outlook.spread * node))
            for step, part in zip(_COST_NODES, _COST_WEIGHTS / _COST_WEIGHTS.sum(), strict=True):
                cost = np.maximum(LEAST_COST, outlook.cost + step * outlook.cost_spread)
                expected = expected + weight * part * self._stairs.added(cost, gain)
        return expected

    def shortfall(self, outlook: Outlook) -> Vector:
        """How far from the front plans are that are not expected to enlarge it, float64 [n]."""
        return self._stairs.shortfall(outlook.cost, np.exp(-outlook.total))

    @cached_property
    def _stairs(self) -> Staircase:
        return Staircase.of(self.front, self.most_cost, self.least_gain, self.most_gain)


@dataclass(frozen=True)
class PlanSearch:
    """Finds promising rows of options.

    Args:
        predict: the outlook of rows [n, positions].
        seed: fixes the search.
    """

    codec: PlanCodec
    predict: Predict
    seed: int

    def candidates(self, known: Options) -> tuple[Options, Outlook]:
        """Rows near the predicted front and their outlook, after some rounds of evolution.

        Args:
            known: rows to start from besides those that simple bargains give, [n, positions]; may be empty.
        """
        rng = np.random.default_rng(self.seed)
        rows = np.concatenate([self._bargains(), known.astype(np.int16)])
        archive = _Archive.of(rows, self.predict(rows))
        for _ in range(ROUNDS):
            children = self.neighbours(archive.rows, rng)
            archive = archive.with_more(children, self.predict(children))
        return archive.rows, archive.outlook

    def _bargains(self) -> Options:
        """For each price of time what every position takes, were it alone, [prices + 1, positions]."""
        count, most = self.codec.keeps.shape
        singles = np.zeros((count * most, count), np.int16)
        legal = np.isfinite(self.codec.keeps).ravel()
        for place in range(count):
            for option in range(most):
                singles[place * most + option, place] = option
        damage, saving = np.full(legal.shape, np.inf), np.zeros(legal.shape)
        alone = self.predict(singles[legal])
        damage[legal], saving[legal] = alone.total, 1.0 - alone.cost
        worth = [damage.reshape(count, most), saving.reshape(count, most)]
        rows = [np.argmin(worth[0] - price * worth[1], axis=1) for price in PRICES]
        return np.stack([np.zeros(count), *rows]).astype(np.int16)

    def neighbours(self, elites: Options, rng: np.random.Generator) -> Options:
        """Children of `elites` [n, positions], crossed and mutated, int16 [CHILDREN, positions]."""
        first, second = (elites[rng.integers(0, len(elites), CHILDREN)] for _ in range(2))
        crossed = np.where(rng.random((CHILDREN, 1)) < 0.5, first, self._crossed(first, second, rng))
        counts = self.codec.counts[None]
        mutated = rng.random(crossed.shape) < rng.choice([1.0, 2.0, 4.0], (CHILDREN, 1)) / crossed.shape[1]
        stepped = np.clip(crossed + rng.choice([-1, 1], crossed.shape), 0, counts - 1)
        anywhere = rng.integers(0, np.broadcast_to(counts, crossed.shape))
        other = np.where(rng.random(crossed.shape) < 0.7, stepped, anywhere)
        children: Options = np.where(mutated, other, crossed).astype(np.int16)
        return children

    def _crossed(self, first: Options, second: Options, rng: np.random.Generator) -> Options:
        """Children of two parents with one cut each: neighbours in the network stay together."""
        cut = rng.integers(0, first.shape[1] + 1, (len(first), 1))
        crossed: Options = np.where(np.arange(first.shape[1])[None] < cut, first, second)
        return crossed


@dataclass(frozen=True)
class _Archive:
    """The row of least damage for each bin of latency ratios, and its outlook."""

    rows: Options
    outlook: Outlook

    @classmethod
    def of(cls, rows: Options, outlook: Outlook) -> _Archive:
        fastest = float(outlook.cost.min())
        shares = (np.minimum(outlook.cost, 1.0) - fastest) / max(1e-9, 1.0 - fastest)
        places = np.clip((shares * BINS).astype(int), 0, BINS)
        order = np.lexsort((outlook.total, places))
        _, first = np.unique(places[order], return_index=True)
        best = order[first]
        return cls(rows[best], outlook.take(best))

    def with_more(self, rows: Options, outlook: Outlook) -> _Archive:
        return _Archive.of(np.concatenate([self.rows, rows]), self.outlook.joined(outlook))
