"""The environment: tasks whose outcomes are known at once, played in lanes; reward is growth of the front.

    reward of an episode = (A(trials so far) − A(trials before)) / A₀ − Σ_c λ_c max(0, violation_c)

A is the hypervolume of (latency over plain INT8's, gain) that `pipeline.tables.trial_task.area` defines, A₀
what the ladder of rules of thumb is predicted to reach. A plan that breaks a hard budget adds nothing to the
front, so that its reward is never above 0, whatever the multipliers λ are; they climb by dual ascent while
any plan breaks it. An episode without an outcome is a `Failure`: its reward is 0, its time step says so, and
the task goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from device_bench.errors import BadInputError
from device_bench.protocol import Failure, FailureKind
from pipeline.environment.building import Building
from pipeline.environment.contract import Choices, Spec, TimeStep
from pipeline.environment.memory import TrialMemory
from pipeline.environment.outcomes import Arena, Outcome, OutcomeTask, outcome_of
from pipeline.environment.stack import SheetStack
from pipeline.policy.lagrange import Multipliers, mean_violations
from pipeline.tables.trial_task import LEAST_GAIN, area

# Lanes that play the same task side by side: their outcomes are asked for together.
LANES_A_TASK = 8
# Rewards beyond this say that the ladder was hopeless, not that a plan was that good.
MOST_REWARD = 3.0


class PlanEnvironment:
    """Episodes on several tasks, `trials` of them on end on each; see `Environment` for its contract.

    Lanes come in groups of `LANES_A_TASK`. Each group draws its next task from those that had the fewest
    turns.

    Args:
        tasks: at least one.
        lanes: a multiple of `LANES_A_TASK`, or fewer than that many.
        trials: episodes on a task before a lane goes on to another.
        seed: of the order of tasks.

    Raises:
        BadInputError: no tasks, a task that cannot be played (see `Arena`), or numbers out of range.
    """

    def __init__(self, tasks: Sequence[OutcomeTask], lanes: int, trials: int, seed: int = 0) -> None:
        if not tasks:
            raise BadInputError("an environment needs at least one task; got none")
        if lanes < 1 or trials < 1 or (lanes > LANES_A_TASK and lanes % LANES_A_TASK):
            raise BadInputError(
                f"lanes must be below {LANES_A_TASK} or a multiple of it, and trials at least 1; "
                f"got {lanes} lanes and {trials} trials"
            )
        self._arenas = tuple(Arena.of(task) for task in tasks)
        self._stack = SheetStack([arena.sheet for arena in self._arenas])
        self._lanes, self._trials, self._seed = lanes, trials, seed
        self._mask: NDArray[np.bool_]
        self._begin()

    @property
    def lanes(self) -> int:
        """How many episodes are played side by side."""
        return self._lanes

    @property
    def spec(self) -> Spec:
        """What observations look like."""
        return self._building.spec

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Episodes without an outcome since the last reset."""
        return tuple(self._failures)

    @property
    def multipliers(self) -> tuple[Multipliers, ...]:
        """Those of each task's constraints."""
        return tuple(self._multipliers)

    def seeded(self, seed: int) -> PlanEnvironment:
        """This environment with another order of tasks from its next reset on."""
        self._seed = seed
        return self

    def reset(self) -> TimeStep:
        """Begin anew, with the multipliers at 0."""
        self._begin()
        nothing = np.zeros(self._lanes, np.float32)
        no = np.zeros(self._lanes, np.bool_)
        return TimeStep(self._building.observe(), nothing, no, no, np.ones(self._lanes, np.bool_))

    def step(self, actions: Choices) -> TimeStep:
        """Take one option in every lane; see `Environment.step`."""
        actions = np.asarray(actions)
        if actions.shape != (self._lanes,) or not np.issubdtype(actions.dtype, np.integer):
            raise BadInputError(
                f"actions must be {self._lanes} whole numbers; got {actions.shape} {actions.dtype}"
            )
        in_range = (actions >= 0) & (actions < self._mask.shape[1])
        if not in_range.all() or not self._mask[np.arange(self._lanes), actions].all():
            raise BadInputError("an action must be one of those that its lane's mask allows")
        ended = self._building.act_(actions)
        reward, failed = np.zeros(self._lanes, np.float32), np.zeros(self._lanes, np.bool_)
        fresh = np.zeros(self._lanes, np.bool_)
        if ended.any():
            for number in np.unique(self._building.task[ended]):
                lanes = np.flatnonzero(ended & (self._building.task == number))
                reward[lanes], failed[lanes] = self._finish(int(number), lanes)
            fresh = ended & (self._memory.count >= self._trials)
            self._move_on(fresh)
            self._building.start_(np.flatnonzero(ended))
        seen = self._building.observe()
        self._mask = seen.mask
        return TimeStep(seen, reward, ended, failed, fresh)

    def _begin(self) -> None:
        self._rng = np.random.default_rng(self._seed)
        self._turns = np.zeros(len(self._arenas), np.int64)
        positions = int(self._stack.length.max())
        self._memory = TrialMemory(self._lanes, self._trials, positions, LEAST_GAIN)
        self._points: list[list[tuple[float, float]]] = [[] for _ in range(self._lanes)]
        self._multipliers = [Multipliers() for _ in self._arenas]
        self._failures: list[Failure] = []
        task = np.concatenate([self._drawn() for _ in range(0, self._lanes, LANES_A_TASK)])[: self._lanes]
        self._building = Building(self._stack, self._memory, task)
        self._mask = self._building.observe().mask

    def _drawn(self) -> NDArray[np.int64]:
        """A task that had the fewest turns, for one group of lanes."""
        number = int(self._rng.choice(np.flatnonzero(self._turns == self._turns.min())))
        self._turns[number] += 1
        return np.full(LANES_A_TASK, number)

    def _finish(self, number: int, lanes: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The rewards of the plans that these lanes of one task have built, and which of them failed."""
        arena = self._arenas[number]
        rows = arena.sheet.links.normal(self._building.row[lanes, : len(arena.sheet.mask)])
        found = outcome_of(arena.task, arena.sheet, rows)
        rewards = np.array([self._take(arena, found, i, int(lane), rows[i]) for i, lane in enumerate(lanes)])
        if found.violations and not found.failed.all():
            # Every plan must keep the budget, not their mean: room that one leaves is no other's.
            kept = [found.violations_of(int(i)) for i in np.flatnonzero(~found.failed)]
            means = mean_violations({name: max(0.0, g) for name, g in one.items()} for one in kept)
            rewards -= [
                0.0 if found.failed[i] else self._multipliers[number].penalty(found.violations_of(i))
                for i in range(len(lanes))
            ]
            self._multipliers[number] = self._multipliers[number].updated(means)
        return np.clip(rewards, -MOST_REWARD, MOST_REWARD).astype(np.float32), found.failed

    def _take(self, arena: Arena, found: Outcome, i: int, lane: int, row: NDArray[np.int16]) -> float:
        """Remember one plan; how much it made the lane's front grow."""
        outcome = (float(found.ratio[i]), float(found.gain[i])) if found.counts[i] else None
        self._memory.add_(lane, row, outcome, arena.sheet.predicted(row), arena.sheet.goals)
        if found.failed[i]:
            message = f"a plan of {arena.task.name} has no finite accuracy and latency"
            self._failures.append(Failure(kind=FailureKind.RUNTIME_ERROR, message=message))
        if outcome is None:
            return 0.0
        before = area(self._points[lane])
        self._points[lane].append(outcome)
        return (area(self._points[lane]) - before) / arena.sheet.unit

    def _move_on(self, fresh: NDArray[np.bool_]) -> None:
        """The groups of lanes that are through with their task go on to another."""
        lanes = np.flatnonzero(fresh)
        if not len(lanes):
            return
        self._memory.forget_(lanes)
        for group in np.unique(lanes // LANES_A_TASK):
            own = lanes[lanes // LANES_A_TASK == group]
            self._building.task[own] = self._drawn()[: len(own)]
        for lane in lanes:
            self._points[lane] = []
