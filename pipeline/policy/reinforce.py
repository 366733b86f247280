"""Policy gradient from scratch on the task itself: the baseline that knows no other task.

After AMC (He et al., ECCV 2018): a plan is built unit by unit, its reward comes at the end, and only what
meets the latency goal can be built. `pipeline.learning.reinforce` has the algorithm. It learns anew from the
whole history at each call, in the order of the trials.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.environment.building import Building
from pipeline.environment.memory import TrialMemory
from pipeline.environment.replay import PlayedTrial, growths, nearest_goal, played_trials
from pipeline.environment.sheet import GOALS, TaskSheet
from pipeline.environment.stack import SheetStack
from pipeline.experience import Trial
from pipeline.learning.reinforce import (
    Episode,
    ReinforceState,
    place_probabilities,
    reinforce_start,
    reinforce_update,
)
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Novelty, PolicyContext
from pipeline.policy.sequential import drawn_plans
from pipeline.tables.codec import Options, PlanCodec
from pipeline.tables.trial_task import LEAST_GAIN

# Plans drawn at once, and how often, until enough of them are new.
LANES, DRAWS = 8, 6


class ReinforcePolicy:
    """Draws plans from what the gradient has made of the policy so far."""

    name = "reinforce"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` new plans; the targets take turns."""
        codec = PlanCodec(context.space)
        novelty = Novelty(history)
        plans: list[CompressionPlan] = []
        targets = [target.name for target in context.targets]
        turn = len(history) % len(targets)
        for place, name in enumerate([*targets[turn:], *targets[:turn]]):
            wanted = len(range(place, count, len(targets)))
            if wanted and codec.positions:
                sheet = TaskSheet.of(context, name, codec)
                trials = played_trials(sheet, history)
                plans += _drawn(sheet, _learned(sheet, trials), trials, wanted, novelty)
        return plans + drawn_plans(context, history, plans, count - len(plans))


def _learned(sheet: TaskSheet, trials: Sequence[PlayedTrial]) -> ReinforceState:
    """The policy after an update for each trial that has an outcome."""
    building, corrections = _building(sheet, max(1, len(trials))), np.ones(len(trials) + 1)
    single = TrialMemory(1, 1, len(sheet.mask), LEAST_GAIN)
    goals = np.zeros(len(trials), np.int64)
    for number, trial in enumerate(trials):
        predicted = sheet.predicted(trial.row)
        corrections[number] = single.correction[0]
        goals[number] = nearest_goal(sheet, predicted[0], corrections[number])
        single.add_(0, trial.row, trial.outcome, predicted, sheet.goals)
    state = reinforce_start(len(sheet.mask) + 1, building.spec.options)
    if not trials:
        return state
    building.memory.correction[:] = corrections[:-1]
    actions = np.concatenate([goals[None], np.stack([t.row for t in trials]).T.astype(np.int64)])
    allowed = []
    for action in actions:
        mask = building.allowed()
        # What was tried may have come from another policy, which no goal bound.
        mask[np.arange(len(action)), action] = True
        allowed.append(mask)
        building.act_(action)
    masks = np.stack(allowed)
    for number, reward in enumerate(growths(sheet, trials)):
        if trials[number].outcome is not None:
            known = _known(actions[:, number])
            episode = Episode(actions[:, number], masks[:, number], known, float(reward))
            state = reinforce_update(state, episode)
    return state


def _drawn(
    sheet: TaskSheet,
    state: ReinforceState,
    trials: Sequence[PlayedTrial],
    count: int,
    novelty: Novelty,
) -> list[CompressionPlan]:
    """New plans drawn from the policy; fewer where it has become sure of itself."""
    rng = np.random.default_rng((sheet.context.seed, len(trials)))
    single = TrialMemory(1, 1, len(sheet.mask), LEAST_GAIN)
    for trial in trials:
        single.add_(0, trial.row, trial.outcome, sheet.predicted(trial.row), sheet.goals)
    plans: list[CompressionPlan] = []
    for _ in range(DRAWS):
        for row in sheet.links.normal(_play(sheet, state, float(single.correction[0]), rng)):
            plan = sheet.codec.decode(row)
            if len(plans) < count and novelty.admits(plan):
                plans.append(plan)
        if len(plans) == count:
            break
    return plans


def _play(sheet: TaskSheet, state: ReinforceState, correction: float, rng: np.random.Generator) -> Options:
    building = _building(sheet, LANES)
    building.memory.correction[:] = correction
    known = np.zeros(LANES)
    for place in range(len(sheet.mask) + 1):
        allowed = building.allowed()
        chances = [place_probabilities(state, place, allowed[i], known[i]) for i in range(LANES)]
        actions = np.array([rng.choice(len(chance), p=chance) for chance in chances])
        if place == 0:
            known = _scaled(actions)
        building.act_(actions)
    return building.row


def _building(sheet: TaskSheet, lanes: int) -> Building:
    memory = TrialMemory(lanes, 1, len(sheet.mask), LEAST_GAIN)
    return Building(SheetStack([sheet]), memory, np.zeros(lanes, np.int64))


def _known(actions: NDArray[np.int64]) -> NDArray[np.float64]:
    """The goal, from −1 to 1, for every choice after that of the goal itself."""
    known = np.full(len(actions), _scaled(actions[:1])[0])
    known[0] = 0.0
    return known


def _scaled(goals: NDArray[np.int64]) -> NDArray[np.float64]:
    return 2.0 * goals / (GOALS - 1) - 1.0
