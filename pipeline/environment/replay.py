"""Trials of a real task as the episodes that they would have been, so that a policy sees what it has done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.environment.building import Building
from pipeline.environment.contract import Choices, Observation
from pipeline.environment.memory import TrialMemory
from pipeline.environment.sheet import TaskSheet
from pipeline.environment.stack import SheetStack
from pipeline.experience import Trial
from pipeline.pareto import pareto_front
from pipeline.tables.codec import Options
from pipeline.tables.trial_task import LEAST_GAIN, area


@dataclass(frozen=True)
class PlayedTrial:
    """One trial: its plan in normal form, and its latency ratio and gain where it has an outcome."""

    row: Options
    outcome: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Replay:
    """The last episodes of a task as they looked to the policy, oldest first.

    `observations`: of each step of an episode, [episodes] lanes each; `actions` int64 [steps, episodes];
    `rewards` float32 [episodes].
    """

    observations: tuple[Observation, ...]
    actions: Choices
    rewards: NDArray[np.float32]


def played_trials(sheet: TaskSheet, history: Sequence[Trial]) -> list[PlayedTrial]:
    """The trials that are plans of the sheet's space; failed and unmeasured ones have no outcome."""
    found = []
    for trial in history:
        if sheet.codec.space.contains(trial.plan):
            found.append(PlayedTrial(sheet.codec.encode(trial.plan), _outcome(sheet, trial)))
    return found


def memory_of(sheet: TaskSheet, trials: Sequence[PlayedTrial], lanes: int) -> TrialMemory:
    """What is remembered after all of `trials`, the same in every lane."""
    memory = _empty(sheet, trials, 1)
    for trial in trials:
        memory.add_(0, trial.row, trial.outcome, sheet.predicted(trial.row), sheet.goals)
    return memory.spread(lanes)


def replay(sheet: TaskSheet, trials: Sequence[PlayedTrial], most: int) -> Replay | None:
    """The last `most` of `trials` as episodes; None where there are none."""
    count = min(most, len(trials))
    if not count:
        return None
    memory, single = _empty(sheet, trials, count), _empty(sheet, trials, 1)
    goals = np.zeros(count, np.int64)
    first = len(trials) - count
    for number, trial in enumerate(trials):
        predicted = sheet.predicted(trial.row)
        if number >= first:
            memory.copy_(number - first, single)
            goals[number - first] = nearest_goal(sheet, predicted[0], float(single.correction[0]))
        single.add_(0, trial.row, trial.outcome, predicted, sheet.goals)
    building = Building(SheetStack([sheet]), memory, np.zeros(count, np.int64))
    rows = np.stack([trial.row for trial in trials[first:]]).astype(np.int64)
    actions = np.concatenate([goals[None], rows.T])
    observations = []
    for action in actions:
        observations.append(building.observe())
        building.act_(action)
    return Replay(tuple(observations), actions, growths(sheet, trials)[first:])


def nearest_goal(sheet: TaskSheet, saved: float, correction: float) -> int:
    """The goal that a plan of this predicted saving was most likely built for."""
    return int(np.abs(sheet.goals - (1.0 - correction * saved)).argmin())


def growths(sheet: TaskSheet, trials: Sequence[PlayedTrial]) -> NDArray[np.float32]:
    """By how much each trial made the front grow, as rewards are counted; float32 [trials]."""
    front: list[tuple[float, float]] = []
    found, before = [], 0.0
    for trial in trials:
        if trial.outcome is not None:
            points = [*front, trial.outcome]
            front = [points[i] for i in pareto_front(points)]
        now = area(front)
        found.append((now - before) / sheet.unit)
        before = now
    return np.array(found, np.float32)


def _empty(sheet: TaskSheet, trials: Sequence[PlayedTrial], lanes: int) -> TrialMemory:
    return TrialMemory(lanes, max(1, len(trials)), len(sheet.mask), LEAST_GAIN)


def _outcome(sheet: TaskSheet, trial: Trial) -> tuple[float, float] | None:
    latency = trial.latency_ms.get(sheet.target)
    if trial.failure is not None or trial.accuracy is None or latency is None:
        return None
    ratio, gain = float(sheet.ratio(np.array(latency))), sheet.context.gain(trial.accuracy)
    if not (np.isfinite(ratio) and np.isfinite(gain)) or ratio > sheet.limit:
        return None
    return ratio, gain
