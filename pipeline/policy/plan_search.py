"""Searches the space for the plan that would enlarge the front most, by a model that answers at once.

For each of many latencies the plan of the highest predicted gain is kept (an archive as in Mouret and Clune,
"Illuminating search spaces by mapping elites", 2015); children are crossed and mutated elites. Candidates are
then held against the front of what was tried: wanted is the expected growth of its hypervolume, with the
predicted damage T uncertain by a log-normal factor (five-point Gauss-Hermite quadrature).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.tables.codec import Options, PlanCodec

Vector = NDArray[np.float64]
Predict = Callable[[Options], tuple[Vector, Vector]]

BINS = 48
ROUNDS = 14
CHILDREN = 96
PRICES = np.exp(np.linspace(np.log(0.02), np.log(20.0), 24))
# Nodes and weights of Gauss-Hermite quadrature for a standard normal variable.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Wanted:
    """What counts as better.

    `front`: (cost, gain) of what was tried, cost being latency over plain INT8's. A plan of more than
    `most_cost`, or of less than `least_gain`, adds nothing. `spread`: standard deviation of ln T.
    """

    front: Sequence[tuple[float, float]]
    most_cost: float = 1.0
    least_gain: float = 0.5
    spread: float = 0.4

    def growth(self, total: Vector, cost: Vector) -> Vector:
        """Expected growth of the hypervolume by plans of damage T `total` [n] and `cost` [n]."""
        expected: Vector = np.zeros(len(cost))
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            gain = np.exp(-total * np.exp(self.spread * node))
            expected = expected + weight * self._certain_growth(gain, cost)
        return expected

    def _certain_growth(self, gain: Vector, cost: Vector) -> Vector:
        inside = sorted(p for p in self.front if p[0] < self.most_cost and p[1] > self.least_gain)
        edges, levels = [0.0], [self.least_gain]
        for at, height in inside:
            if height > levels[-1]:
                edges.append(at)
                levels.append(height)
        ends = np.array([*edges[1:], self.most_cost])
        starts = np.maximum(np.array(edges)[None], cost[:, None])
        widths = np.maximum(0.0, ends[None] - starts)
        heights = np.maximum(0.0, gain[:, None] - np.array(levels)[None])
        grown: Vector = (widths * heights).sum(1)
        return grown


@dataclass(frozen=True)
class PlanSearch:
    """Finds promising rows of options.

    Args:
        predict: damage T and latency ratio of rows [n, positions], float64 [n] each.
        seed: fixes the search.
    """

    codec: PlanCodec
    predict: Predict
    seed: int

    def candidates(self, known: Options) -> tuple[Options, Vector, Vector]:
        """Rows near the predicted front with their T and latency ratio, after some rounds of evolution.

        Args:
            known: rows to start from besides those that simple bargains give, [n, positions]; may be empty.
        """
        rng = np.random.default_rng(self.seed)
        rows = np.concatenate([self._bargains(), known.astype(np.int16)])
        archive = _Archive.of(rows, *self.predict(rows))
        for _ in range(ROUNDS):
            children = self.neighbours(archive.rows, rng)
            archive = archive.with_more(children, *self.predict(children))
        return archive.rows, archive.total, archive.cost

    def _bargains(self) -> Options:
        """For each price of time what every position takes, were it alone, [prices + 1, positions]."""
        count, most = self.codec.keeps.shape
        singles = np.zeros((count * most, count), np.int16)
        legal = np.isfinite(self.codec.keeps).ravel()
        for place in range(count):
            for option in range(most):
                singles[place * most + option, place] = option
        damage, saving = np.full(legal.shape, np.inf), np.zeros(legal.shape)
        total, cost = self.predict(singles[legal])
        damage[legal], saving[legal] = total, 1.0 - cost
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
    """The row of least damage for each bin of latency ratios, and its figures."""

    rows: Options
    total: Vector
    cost: Vector

    @classmethod
    def of(cls, rows: Options, total: Vector, cost: Vector) -> _Archive:
        places = np.clip(((np.log(np.clip(cost, 0.05, 1.2)) + 3.0) / 3.2 * BINS).astype(int), 0, BINS)
        order = np.lexsort((total, places))
        _, first = np.unique(places[order], return_index=True)
        best = order[first]
        return cls(rows[best], total[best], cost[best])

    def with_more(self, rows: Options, total: Vector, cost: Vector) -> _Archive:
        return _Archive.of(
            np.concatenate([self.rows, rows]),
            np.concatenate([self.total, total]),
            np.concatenate([self.cost, cost]),
        )
