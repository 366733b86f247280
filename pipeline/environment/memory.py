"""What each lane remembers of the trials of its task: outcomes, the front, how well predictions held."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.environment.sheet import GOALS

Vector = NDArray[np.float64]

# Savings are corrected by what was observed, within these factors.
CORRECTIONS = (0.5, 1.5)
DROP_CORRECTIONS = (0.2, 5.0)
# Added to observed and predicted drops: smaller ones are noise.
DROP_GRAIN = 0.01
# Trials predicted to save less say more about noise than about the prediction.
LEAST_SAVING = 0.05


class TrialMemory:
    """Arrays of [lanes, …], changed in place; at most `trials` are kept a lane, the oldest go first.

    `rows` int16 [lanes, trials, positions] in normal form; `ratio` (latency over plain INT8's) and `gain`
    [lanes, trials], NaN where a trial failed or there was none yet; `front` [lanes, GOALS]: the best gain
    within each latency goal, `floor` where there is none; `last` [lanes, 3]: latency ratio and gain of the
    last trial and whether it failed; `correction` and `drop_correction` [lanes]: observed over predicted
    saving, and observed over predicted loss of gain.

    Args:
        floor: gains up to this are worth nothing.
    """

    def __init__(self, lanes: int, trials: int, positions: int, floor: float) -> None:
        self.trials, self.floor = trials, floor
        self.rows = np.zeros((lanes, trials, positions), np.int16)
        self.ratio = np.full((lanes, trials), np.nan)
        self.gain = np.full((lanes, trials), np.nan)
        self.front = np.full((lanes, GOALS), floor)
        self.count = np.zeros(lanes, np.int64)
        self.last = np.zeros((lanes, 3))
        self.correction = np.ones(lanes)
        self.drop_correction = np.ones(lanes)
        self._saved = np.zeros((lanes, 2))
        # Sum of logarithms of observed over predicted losses, and how many there were.
        self._lost = np.zeros((lanes, 2))

    def copy_(self, lane: int, other: TrialMemory) -> None:
        """What the first lane of another memory of the same size knows, into one of these lanes."""
        for mine, its in zip(self._columns, other._columns, strict=True):
            mine[lane] = its[0]

    def spread(self, lanes: int) -> TrialMemory:
        """So many lanes that each know what the first of these knows."""
        found = TrialMemory(lanes, self.trials, self.rows.shape[2], self.floor)
        for mine, its in zip(self._columns, found._columns, strict=True):
            its[:] = mine[:1]
        return found

    @property
    def _columns(self) -> tuple[np.ndarray, ...]:
        own = (self.rows, self.ratio, self.gain, self.front, self.count, self.last)
        return (*own, self.correction, self.drop_correction, self._saved, self._lost)

    def forget_(self, lanes: NDArray[np.int64]) -> None:
        """Another task begins in these lanes."""
        self.rows[lanes] = 0
        self.ratio[lanes] = self.gain[lanes] = np.nan
        self.front[lanes] = self.floor
        self.count[lanes] = 0
        self.last[lanes] = 0.0
        self.correction[lanes] = self.drop_correction[lanes] = 1.0
        self._saved[lanes] = self._lost[lanes] = 0.0

    def add_(
        self,
        lane: int,
        row: NDArray[np.int16],
        outcome: tuple[float, float] | None,
        predicted: tuple[float, float],
        goals: Vector,
    ) -> None:
        """One trial of a lane.

        Args:
            row: in normal form, [positions of this lane's task].
            outcome: latency ratio and gain; None if it failed or broke the budget.
            predicted: the saving as a share of the original's latency, and the loss of gain, uncorrected.
            goals: of this lane's task, [GOALS].
        """
        slot = self.count[lane] % self.trials
        self.rows[lane, slot] = 0
        self.rows[lane, slot, : len(row)] = row
        self.count[lane] += 1
        if outcome is None:
            self.ratio[lane, slot] = self.gain[lane, slot] = np.nan
            self.last[lane] = 0.0, 0.0, 1.0
            return
        ratio, gain = outcome
        self.ratio[lane, slot], self.gain[lane, slot] = ratio, gain
        self.last[lane] = ratio, gain, 0.0
        self.front[lane] = np.maximum(self.front[lane], np.where(ratio <= goals, gain, self.floor))
        saving, loss = predicted
        if saving > LEAST_SAVING:
            self._saved[lane] += 1.0 - ratio, saving
            self.correction[lane] = np.clip(self._saved[lane, 0] / self._saved[lane, 1], *CORRECTIONS)
        observed = max(0.0, 1.0 - gain) + DROP_GRAIN
        self._lost[lane] += np.log(observed / (loss + DROP_GRAIN)), 1.0
        mean = np.exp(self._lost[lane, 0] / self._lost[lane, 1])
        self.drop_correction[lane] = np.clip(mean, *DROP_CORRECTIONS)

    def elite(self, wanted_ratio: Vector, lanes: NDArray[np.int64]) -> tuple[NDArray[np.int16], Vector]:
        """Of each lane's front the trial nearest to a wanted latency ratio, and what came of it.

        Returns: rows int16 [lanes, positions], and [lanes, 3] with ratio, gain and 1; 0 where there is none.
        """
        ratio, gain = self.ratio[lanes], self.gain[lanes]
        known = np.isfinite(ratio)
        ratio, gain = np.where(known, ratio, np.inf), np.where(known, gain, -np.inf)
        no_worse = (ratio[:, None] <= ratio[..., None]) & (gain[:, None] >= gain[..., None])
        better = (ratio[:, None] < ratio[..., None]) | (gain[:, None] > gain[..., None])
        on_front = known & ~(no_worse & better).any(2)
        distance = np.where(on_front, np.abs(ratio - wanted_ratio[:, None]), np.inf)
        nearest = distance.argmin(1)
        each = np.arange(len(lanes))
        found = on_front.any(1)
        told = np.stack([ratio[each, nearest], gain[each, nearest], np.ones(len(lanes))], axis=1)
        return (
            np.where(found[:, None], self.rows[lanes, nearest], 0).astype(np.int16),
            np.where(found[:, None], told, 0.0),
        )
