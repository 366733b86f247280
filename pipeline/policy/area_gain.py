"""How much a plan would add to what the tried ones dominate, for many plans at once.

Of points (cost, gain) the dominated area up to (most cost, least gain) is a staircase; a candidate adds the
part of its own rectangle above it:

    added(c, g) = integral over x from c to most cost of max(0, min(g, most gain) - stairs(x)) dx

(hypervolume improvement in two dimensions; Emmerich et al., IEEE TEC 2006.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.pareto import pareto_front

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Staircase:
    """What tried points dominate: `levels` [steps] from `starts` [steps] on, up to `most_cost`.

    A gain above `most_gain` counts as that.
    """

    starts: Vector
    levels: Vector
    most_cost: float
    most_gain: float = 1.0

    @classmethod
    def of(
        cls,
        points: Sequence[tuple[float, float]],
        most_cost: float,
        least_gain: float,
        most_gain: float = 1.0,
    ) -> Staircase:
        """The staircase of points (cost, gain); those beyond the reference do not count."""
        inside = [(c, min(g, most_gain)) for c, g in points if c < most_cost and g > least_gain]
        front = [inside[index] for index in pareto_front(inside)]
        starts, levels = zip((-np.inf, least_gain), *front, strict=True)
        return cls(np.array(starts), np.array(levels), most_cost, most_gain)

    def added(self, cost: Vector, gain: Vector) -> Vector:
        """The area that each candidate, `cost` [n] and `gain` [n], would add alone."""
        ends = np.append(self.starts[1:], self.most_cost)
        widths = np.maximum(0.0, ends - np.maximum(self.starts, cost[:, None]))
        heights = np.maximum(0.0, np.minimum(gain, self.most_gain)[:, None] - self.levels)
        return np.asarray((widths * heights).sum(axis=1))

    def shortfall(self, cost: Vector, gain: Vector) -> Vector:
        """How far below the staircase candidates are at their cost; what costs too much lies lowest."""
        at = np.searchsorted(self.starts, cost, side="right") - 1
        below: Vector = self.levels[at] - gain
        return below + np.maximum(0.0, cost - self.most_cost)
