"""Episodes being played: plans built decision by decision, in many lanes at once.

An episode's first action takes one of the task's latency goals. Each further action takes an option of the
next position. An option is allowed if, by predicted savings s, the goal can still be met after it:

    saved + s(option) + (the most that the positions after it can save) ≥ (1 − goal) / correction

with `correction` the observed over the predicted savings of the lane's trials. So a plan meets its goal by
construction wherever any does. Positions inside a removed block can only be left as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.environment.contract import Choices, Floats, Observation, Spec
from pipeline.environment.memory import TrialMemory
from pipeline.environment.sheet import EXPONENT, GOALS, POSITION_FEATURES
from pipeline.environment.stack import SheetStack
from pipeline.policy.plan_features import NAMES

Vector = NDArray[np.float64]
Lanes = NDArray[np.int64]

STATE_FEATURES = 22
PLAN_FEATURES, GOAL_FEATURES = 8, 6
# Log-odds of what the rules of thumb advise.
ADVICE = 3.0
GOAL_ADVICE = 4.0
ROUNDING = 1e-9


class Building:
    """The decisions of the episode in hand, in every lane; changed in place.

    `task` int64 [lanes]; `place` int64 [lanes]: the position to decide next, −1 for the goal; `row` int16
    [lanes, positions]; `goal` [lanes]: latency over plain INT8's, and `saved` [lanes]: predicted.
    """

    def __init__(self, stack: SheetStack, memory: TrialMemory, task: Lanes) -> None:
        lanes = len(task)
        self.stack, self.memory = stack, memory
        self.task = task.copy()
        self.place = np.full(lanes, -1)
        self.row = np.zeros((lanes, int(stack.length.max())), np.int16)
        self.goal, self.saved, self._weight = np.ones(lanes), np.zeros(lanes), np.zeros(lanes)
        self._potential, self._rung = np.zeros(lanes), np.zeros(lanes, np.int64)
        self._elite = np.zeros_like(self.row), np.zeros((lanes, 3))
        self.start_(np.arange(lanes))

    @property
    def spec(self) -> Spec:
        """What observations look like."""
        return Spec(
            POSITION_FEATURES + STATE_FEATURES,
            max(self.stack.options, GOALS),
            len(NAMES) + PLAN_FEATURES + GOAL_FEATURES,
        )

    def start_(self, lanes: Lanes) -> None:
        """A new episode begins in these lanes."""
        self.place[lanes] = -1
        self.row[lanes] = 0
        self.goal[lanes] = 1.0
        self.saved[lanes] = self._weight[lanes] = 0.0
        self._potential[lanes] = self.stack.most[self.task[lanes]].sum(1)
        self._elite[0][lanes], self._elite[1][lanes] = 0, 0.0

    def act_(self, actions: Choices) -> NDArray[np.bool_]:
        """Take an allowed option in every lane; tells in which lanes the plan is now complete."""
        aiming = self.place < 0
        lanes = np.flatnonzero(aiming)
        if len(lanes):
            self.goal[lanes] = self.stack.goals[self.task[lanes], actions[lanes]]
            needed = self._needed(lanes)[:, None]
            self._rung[lanes] = self._rungs(self.task[lanes], np.zeros_like(lanes), needed)[:, 0]
            rows, told = self.memory.elite(self.goal[lanes], lanes)
            self._elite[0][lanes], self._elite[1][lanes] = rows, told
        lanes = np.flatnonzero(~aiming)
        if len(lanes):
            task, place, option = self.task[lanes], self.place[lanes], actions[lanes]
            gone = self._gone(lanes)
            self.row[lanes, place] = option
            self.saved[lanes] += self.stack.saving[task, place, option]
            self._weight[lanes] += self.stack.weight[task, place, option]
            own = np.where(gone, 0.0, self.stack.most[task, place])
            self._potential[lanes] -= own + (option > 0) * self.stack.most_inside[task, place]
        self.place += 1
        complete: NDArray[np.bool_] = self.place == self.stack.length[self.task]
        return complete

    def observe(self) -> Observation:
        """What every lane sees now."""
        spec, lanes = self.spec, len(self.task)
        seen = Observation(
            np.zeros((lanes, spec.features), np.float32),
            np.zeros((lanes, spec.options, spec.option_features), np.float32),
            np.zeros((lanes, spec.options), np.bool_),
            np.zeros((lanes, spec.options), np.float32),
        )
        aiming = self.place < 0
        if aiming.any():
            self._see_goals(np.flatnonzero(aiming), seen)
        if not aiming.all():
            self._see_options(np.flatnonzero(~aiming), seen)
        return seen

    def allowed(self) -> NDArray[np.bool_]:
        """The mask of `observe` alone, bool [lanes, options]."""
        mask = np.zeros((len(self.task), self.spec.options), np.bool_)
        aiming, planning = np.flatnonzero(self.place < 0), np.flatnonzero(self.place >= 0)
        if len(aiming):
            mask[aiming, :GOALS] = self._allowed_goals(aiming)
        if len(planning):
            mask[planning, : self.stack.options] = _options_within(self._room(planning))
        return mask

    def _see_goals(self, lanes: Lanes, seen: Observation) -> None:
        task, memory = self.task[lanes], self.memory
        goals = self.stack.goals[task]
        needed = (1.0 - goals) / memory.correction[lanes, None]
        rungs = self._rungs(task, np.zeros_like(task), needed)
        lost = memory.drop_correction[lanes, None] * (1.0 - self.stack.ladder_gain[task[:, None], rungs])
        expected = np.maximum(0.0, 1.0 - lost)
        front = memory.front[lanes]
        growth = np.tril(np.maximum(0.0, expected[:, :, None] - front[:, None, :])).sum(2) / GOALS
        tried = np.abs(memory.ratio[lanes][:, None, :] - goals[:, :, None])
        gap = np.where(np.isfinite(tried), tried, 1.0).min(2)
        allowed = self._allowed_goals(lanes)
        options = np.stack([np.ones_like(goals), goals, front, expected, 5 * growth, gap], axis=2)
        seen.options[lanes, :GOALS, -GOAL_FEATURES:] = options
        seen.mask[lanes, :GOALS] = allowed
        best = np.maximum(np.where(allowed, growth, 0.0).max(1, keepdims=True), 1e-6)
        seen.prior[lanes, :GOALS] = GOAL_ADVICE * (growth / best - 1.0)
        seen.features[lanes, POSITION_FEATURES:] = self._state(lanes, expected.mean(1))

    def _see_options(self, lanes: Lanes, seen: Observation) -> None:
        task, place = self.task[lanes], self.place[lanes]
        stack, count = self.stack, self.stack.options
        each = np.arange(len(lanes))
        left = self._needed(lanes) - self.saved[lanes]
        rung = self._rung[lanes]
        short = stack.ladder_saving_left[task, rung, place] < left - ROUNDING
        rung = np.where(short, self._rungs(task, place, left[:, None])[:, 0], rung)
        advised = stack.ladder[task, rung, place].astype(np.int64)
        gone = self._gone(lanes)
        advised[gone] = 0
        saving, weight = stack.saving[task, place], stack.weight[task, place]

        room = self._room(lanes)
        allowed = _options_within(room)
        advised = np.where(allowed[each, advised], advised, _nearest(allowed, advised))

        options = stack.mask[task, place].sum(1, keepdims=True)
        rows, told = self._elite[0][lanes, place].astype(np.int64), self._elite[1][lanes]
        offset = np.arange(count)[None] - advised[:, None]
        from_elite = np.arange(count)[None] - rows[:, None]
        plan = np.stack(
            [
                np.ones((len(lanes), count)),
                offset == 0,
                offset / options,
                (from_elite == 0) * told[:, 2:],
                from_elite / options * told[:, 2:],
                np.clip(np.nan_to_num(room, neginf=-1.0), -1.0, 1.0),
                5 * (saving - saving[each, advised][:, None]),
                np.clip(2 * (weight - weight[each, advised][:, None]), -3.0, 3.0),
            ],
            axis=2,
        )
        static = len(NAMES)
        seen.options[lanes, :count, :static] = stack.option[task, place]
        seen.options[lanes, :count, static : static + PLAN_FEATURES] = plan
        seen.mask[lanes, :count] = allowed
        seen.prior[lanes, :count] = ADVICE * (offset == 0)
        seen.features[lanes, :POSITION_FEATURES] = stack.position[task, place]
        total = self._weight[lanes] + stack.ladder_weight_left[task, rung, place]
        lost = self.memory.drop_correction[lanes] * total ** (1 / EXPONENT)
        seen.features[lanes, POSITION_FEATURES:] = self._state(lanes, np.exp(-lost))

    def _state(self, lanes: Lanes, expected: Vector) -> Floats:
        """What does not belong to one position: the budget, the episode, the trials so far."""
        task, memory = self.task[lanes], self.memory
        needed, saved = self._needed(lanes), self.saved[lanes]
        columns = [
            self.place[lanes] < 0,
            (self.place[lanes] + 1) / (self.stack.length[task] + 1),
            self.goal[lanes],
            needed,
            saved,
            needed - saved,
            self._potential[lanes],
            self._weight[lanes] ** (1 / EXPONENT),
            expected,
            *self._elite[1][lanes].T,
            *memory.last[lanes].T,
            memory.correction[lanes] - 1.0,
            np.log(memory.drop_correction[lanes]),
            np.log1p(memory.count[lanes]) / 3,
            memory.count[lanes] == 0,
            memory.front[lanes].mean(1),
            np.isfinite(self.stack.limit[task]),
            np.minimum(self.stack.limit[task], 1.0),
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def _allowed_goals(self, lanes: Lanes) -> NDArray[np.bool_]:
        """Goals within reach that keep the budget, [n, GOALS]; the fastest where there are none."""
        goals, limit = self.stack.goals[self.task[lanes]], self.stack.limit[self.task[lanes], None]
        needed = (1.0 - goals) / self.memory.correction[lanes, None]
        allowed: NDArray[np.bool_] = needed <= self._potential[lanes, None] + ROUNDING
        allowed &= goals <= limit + ROUNDING
        allowed[~allowed.any(1), -1] = True
        return allowed

    def _room(self, lanes: Lanes) -> Vector:
        """By how much the goal can be outdone after each option, [n, options]; −inf where there is none."""
        task, place, stack = self.task[lanes], self.place[lanes], self.stack
        gone = self._gone(lanes)
        inside = stack.most_inside[task, place]
        own = np.where(gone, 0.0, stack.most[task, place])
        removed = (np.arange(stack.options) > 0) * inside[:, None]
        after = (self._potential[lanes] - own)[:, None] - removed
        left = self._needed(lanes) - self.saved[lanes]
        room = np.where(stack.mask[task, place], stack.saving[task, place] + after - left[:, None], -np.inf)
        room[gone, 1:] = -np.inf
        return room

    def _needed(self, lanes: Lanes) -> Vector:
        """The saving that the goal asks for, before correction."""
        found: Vector = (1.0 - self.goal[lanes]) / self.memory.correction[lanes]
        return found

    def _gone(self, lanes: Lanes) -> NDArray[np.bool_]:
        """Where the position to decide leaves with a block that was removed."""
        home = self.stack.inside[self.task[lanes], self.place[lanes]]
        gone: NDArray[np.bool_] = (home >= 0) & (self.row[lanes, np.maximum(home, 0)] != 0)
        return gone

    def _rungs(self, task: Lanes, place: Lanes, needed: Vector) -> Lanes:
        """The lowest rung of the ladder that saves `needed` [n, k] from `place` on; [n, k]."""
        saved = self.stack.ladder_saving_left[task, :, place]
        enough = saved[:, None, :] >= needed[:, :, None] - ROUNDING
        found: Lanes = np.where(enough.any(2), enough.argmax(2), saved.shape[1] - 1)
        return found


def _options_within(room: Vector) -> NDArray[np.bool_]:
    """Options that leave room; where none does, those that come nearest."""
    least = np.minimum(0.0, room.max(1, keepdims=True))
    allowed: NDArray[np.bool_] = room >= least - ROUNDING
    return allowed


def _nearest(allowed: NDArray[np.bool_], advised: Lanes) -> Lanes:
    """The allowed option nearest to the advised one."""
    distance = np.abs(np.arange(allowed.shape[1])[None] - advised[:, None])
    nearest: Lanes = np.where(allowed, distance, np.iinfo(np.int64).max).argmin(1)
    return nearest
