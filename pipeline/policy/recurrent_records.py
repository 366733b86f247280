"""Experience for the recurrent learner: plans of tasks with their outcomes, and what did well among them.

Records of a task are what a search over its outcomes leaves behind: rules of thumb, plans at random, and
children of the best so far. A demonstration is a history drawn from them, and the record that makes the front
of that history grow most: which goal it takes, and then each of its options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.environment.building import Building
from pipeline.environment.contract import Observation, Spec
from pipeline.environment.memory import TrialMemory
from pipeline.environment.outcomes import Arena, outcome_of
from pipeline.environment.stack import SheetStack
from pipeline.learning.recurrent import Demonstrations
from pipeline.learning.recurrent_net import Steps
from pipeline.tables.codec import Options
from pipeline.tables.trial_task import LEAST_GAIN

Vector = NDArray[np.float64]

DRAWN, GENERATIONS, CHILDREN = 128, 14, 64
# Records that lose no more than this against the front did well, too.
SLACK = 0.01
# Histories are drawn from records that lose no more than this against the front.
TOLERANCE = 0.6
LONGEST_HISTORY = 16
LANES = 64


@dataclass(frozen=True, eq=False)
class Records:
    """Plans of a task in normal form, int16 [n, positions], latency ratios and gains [n]; none failed.

    `behind` [n]: what each loses against the best of the records that are as fast.
    """

    rows: Options
    ratio: Vector
    gain: Vector
    behind: Vector


def records_of(arena: Arena, seed: int) -> Records:
    """What a search by mutation finds on a task, starting at rules of thumb and plans at random."""
    sheet, rng = arena.sheet, np.random.default_rng(seed)
    drawn = [sheet.codec.encode(sheet.codec.space.sample(rng)) for _ in range(DRAWN)]
    rows = sheet.links.normal(np.unique(np.concatenate([sheet.ladder, np.stack(drawn)]), axis=0))
    known = _judged(arena, np.unique(rows, axis=0))
    for _ in range(GENERATIONS):
        good = np.flatnonzero(known.behind <= SLACK)
        parents = known.rows[rng.choice(good, CHILDREN)]
        other = known.rows[rng.choice(good, CHILDREN)]
        crossed = np.where(rng.random(parents.shape) < 0.3, other, parents)
        rate = rng.choice([1.0, 2.0, 4.0], (CHILDREN, 1)) / parents.shape[1]
        fresh = (rng.random(parents.shape) * sheet.codec.counts).astype(np.int16)
        near = np.clip(crossed + rng.choice([-1, 1], parents.shape), 0, sheet.codec.counts - 1)
        moved = np.where(rng.random(parents.shape) < 0.5, near, fresh)
        children = np.where(rng.random(parents.shape) < rate, moved, crossed).astype(np.int16)
        more = _judged(arena, np.unique(sheet.links.normal(children), axis=0))
        known = _joined(known, more)
    return known


class DemonstrationSource:
    """Draws demonstrations on several tasks, `LANES` at once.

    Args:
        arenas: the tasks.
        records: of each.
    """

    def __init__(self, arenas: Sequence[Arena], records: Sequence[Records]) -> None:
        self._arenas, self._records = tuple(arenas), tuple(records)
        self._stack = SheetStack([arena.sheet for arena in arenas])
        self._positions = int(self._stack.length.max())

    @property
    def spec(self) -> Spec:
        """What is seen at each step."""
        memory = TrialMemory(1, 1, self._positions, LEAST_GAIN)
        return Building(self._stack, memory, np.zeros(1, np.int64)).spec

    def batch(self, seed: int) -> Demonstrations:
        """`LANES` demonstrations on tasks drawn alike."""
        rng = np.random.default_rng(seed)
        task = rng.integers(0, len(self._arenas), LANES)
        memory = TrialMemory(LANES, LONGEST_HISTORY, self._positions, LEAST_GAIN)
        rows, saved = np.zeros((LANES, self._positions), np.int64), np.zeros(LANES)
        for lane, number in enumerate(task):
            arena, records = self._arenas[number], self._records[number]
            self._remember_(memory, lane, int(number), rng)
            best = _most_growth(records, arena.sheet.goals, memory.front[lane], rng)
            rows[lane, : len(arena.sheet.mask)] = records.rows[best]
            saved[lane] = arena.sheet.predicted(records.rows[best])[0]
        building = Building(self._stack, memory, task)
        # The fastest goal that the plan was predicted to meet, so that each of its options was allowed.
        reached = 1.0 - memory.correction * saved
        goals = np.maximum((self._stack.goals[task] >= reached[:, None] - 1e-9).sum(1) - 1, 0)
        return self._played(building, np.concatenate([goals[None], rows.T]))

    def _remember_(self, memory: TrialMemory, lane: int, number: int, rng: np.random.Generator) -> None:
        records, sheet = self._records[number], self._arenas[number].sheet
        likely = np.flatnonzero(records.behind <= TOLERANCE)
        for record in rng.choice(likely, int(rng.integers(0, LONGEST_HISTORY + 1))):
            row = records.rows[record]
            outcome = float(records.ratio[record]), float(records.gain[record])
            memory.add_(lane, row, outcome, sheet.predicted(row), sheet.goals)

    def _played(self, building: Building, actions: NDArray[np.int64]) -> Demonstrations:
        """What is seen while `actions` [1 + positions, LANES] are taken; finished lanes wait, unweighed."""
        length = self._stack.length[building.task]
        seen: list[Observation] = []
        weight = np.zeros(actions.shape, np.float32)
        chosen = actions.copy()
        for step, action in enumerate(actions):
            active = step <= length
            # A lane that is through plays its last position over and over.
            building.place[~active] = length[~active] - 1
            now = building.observe()
            chosen[step] = np.where(active, action, now.mask.argmax(1))
            now.mask[np.arange(len(action)), chosen[step]] = True
            weight[step] = active
            seen.append(now)
            building.act_(chosen[step])
        return Demonstrations(_steps(seen, chosen), torch.from_numpy(chosen), torch.from_numpy(weight))


def _steps(seen: Sequence[Observation], actions: NDArray[np.int64]) -> Steps:
    options = np.stack([one.options for one in seen])
    lanes = np.arange(actions.shape[1])
    told = np.stack([one.options[lanes, a] for one, a in zip(seen, actions, strict=True)])
    before = np.concatenate([np.zeros_like(told[:1]), told[:-1]])
    nothing = np.zeros((*actions.shape, 2), np.float32)
    features = np.stack([one.features for one in seen])
    return Steps(
        torch.from_numpy(np.concatenate([features, before, nothing], axis=2)),
        torch.ones(actions.shape),
        torch.from_numpy(options),
        torch.from_numpy(np.stack([one.mask for one in seen])),
        torch.from_numpy(np.stack([one.prior for one in seen])),
    )


def _most_growth(records: Records, goals: Vector, front: Vector, rng: np.random.Generator) -> int:
    """The record near the front that adds most to a history's front; noise decides between equals."""
    good = np.flatnonzero(records.behind <= SLACK)
    better = np.maximum(0.0, records.gain[good, None] - front) * (records.ratio[good, None] <= goals)
    growth = better.sum(1) * np.exp(rng.normal(0.0, 0.1, len(good)))
    return int(good[growth.argmax()])


def _judged(arena: Arena, rows: Options) -> Records:
    found = outcome_of(arena.task, arena.sheet, rows)
    met = found.counts
    return _ranked(rows[met], found.ratio[met], found.gain[met])


def _joined(one: Records, other: Records) -> Records:
    rows, first = np.unique(np.concatenate([one.rows, other.rows]), axis=0, return_index=True)
    ratio, gain = np.concatenate([one.ratio, other.ratio]), np.concatenate([one.gain, other.gain])
    return _ranked(rows, ratio[first], gain[first])


def _ranked(rows: Options, ratio: Vector, gain: Vector) -> Records:
    order = np.argsort(ratio, kind="stable")
    behind = np.zeros(len(ratio))
    behind[order] = np.maximum.accumulate(gain[order]) - gain[order]
    return Records(rows, ratio, gain, behind)
