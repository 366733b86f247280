from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from environment_suite import EnvironmentSuite, allowed_actions, played
from known_outcomes import (
    KnownOutcomes,
    SizedOutcomes,
    chain_outcomes,
    no_unit_outcomes,
    one_unit_outcomes,
    residual_outcomes,
)

from device_bench.errors import BadInputError
from device_bench.protocol import FailureKind
from pipeline.environment.contract import Environment, TimeStep
from pipeline.environment.environment import PlanEnvironment
from pipeline.environment.outcomes import Arena, OutcomeTask, outcome_of
from pipeline.environment.sheet import GOALS
from pipeline.task import Budget

LITERT = "local-litert"


class TestPlanEnvironment(EnvironmentSuite):
    @pytest.fixture
    def environment(self) -> Environment:
        """Two groups of lanes on tasks of different lengths."""
        return PlanEnvironment([residual_outcomes(), chain_outcomes()], lanes=16, trials=2, seed=1)


class TestOneDecision(EnvironmentSuite):
    @pytest.fixture
    def environment(self) -> Environment:
        return PlanEnvironment([one_unit_outcomes()], lanes=3, trials=4)


class TestWithFailures(EnvironmentSuite):
    @pytest.fixture
    def environment(self) -> Environment:
        return PlanEnvironment([residual_outcomes(broken=1)], lanes=4, trials=2)


def advised(step: TimeStep) -> np.ndarray:
    return np.where(step.observation.mask, step.observation.prior, -np.inf).argmax(1)


def rewards_of(environment: PlanEnvironment, steps: int, *, follow: bool) -> list[float]:
    rng = np.random.default_rng(0)
    step, found = environment.reset(), []
    for _ in range(steps):
        step = environment.step(advised(step) if follow else allowed_actions(step, rng))
        found += step.reward[step.last & ~step.failed].tolist()
    return found


def test_following_the_rules_of_thumb_earns_more_than_chance() -> None:
    environment = PlanEnvironment([residual_outcomes(LITERT)], lanes=8, trials=5)
    steps = 5 * (len(residual_outcomes().codec.positions) + 1)
    assert sum(rewards_of(environment, steps, follow=True)) > 1.3 * sum(
        rewards_of(environment, steps, follow=False)
    )


def test_without_probes_there_is_still_advice() -> None:
    environment = PlanEnvironment([residual_outcomes(LITERT, probed=False)], lanes=8, trials=5)
    assert sum(rewards_of(environment, 100, follow=True)) > 0.0


def test_rewards_of_a_task_add_up_to_the_area_of_its_front() -> None:
    task = chain_outcomes()
    environment = PlanEnvironment([task], lanes=1, trials=4)
    unit, total = Arena.of(task).sheet.unit, 0.0
    steps = played(environment, 3 * 4)
    total = sum(float(step.reward[0]) for step in steps)
    assert steps[-1].fresh[0]
    assert 0.0 < total * unit <= 0.5


def test_a_repeated_plan_earns_nothing() -> None:
    environment = PlanEnvironment([one_unit_outcomes()], lanes=2, trials=3)
    environment.reset()
    rewards = []
    for _ in range(2):
        mask = environment.step(np.zeros(2, np.int64)).observation.mask
        rewards.append(environment.step(np.array([np.flatnonzero(row)[-1] for row in mask])).reward)
    assert np.all(rewards[0] > 0.0)
    assert not rewards[1].any()


def test_plans_meet_their_goal_by_prediction() -> None:
    task = residual_outcomes(LITERT)
    sheet = Arena.of(task).sheet
    environment = PlanEnvironment([task], lanes=8, trials=1)
    rng = np.random.default_rng(3)
    step = environment.reset()
    goals = allowed_actions(step, rng)
    step = environment.step(goals)
    rows = []
    while not step.last.any():
        action = allowed_actions(step, rng)
        rows.append(action)
        step = environment.step(action)
    built = np.stack(rows, axis=1)
    saved = [sheet.predicted(row)[0] for row in built]
    assert np.all(1.0 - np.array(saved) <= sheet.goals[goals] + 1e-6)


def test_nothing_is_decided_inside_a_removed_block() -> None:
    task = residual_outcomes()
    environment = PlanEnvironment([task], lanes=1, trials=1)
    home = task.codec.inside
    step = environment.reset()
    step = environment.step(np.array([0]))
    removed: set[int] = set()
    seen = 0
    for place, position in enumerate(task.codec.positions):
        allowed = np.flatnonzero(step.observation.mask[0])
        if home[place] in removed:
            assert allowed.tolist() == [0]
            seen += 1
        if position.is_block and 1 in allowed:
            removed.add(place)
        step = environment.step(allowed[-1:])
    assert seen > 0


def test_a_hard_latency_budget_masks_slower_goals() -> None:
    task = residual_outcomes(LITERT, Budget(min_speedup=1.5))
    sheet = Arena.of(task).sheet
    mask = PlanEnvironment([task], lanes=1, trials=1).reset().observation.mask[0, :GOALS]
    assert mask.any()
    assert np.all(sheet.goals[mask] <= 1 / 1.5 + 1e-9)


def test_an_unmet_budget_never_earns() -> None:
    """A file limit that the mask cannot know: what breaks it earns nothing, and then costs."""
    limited = SizedOutcomes(residual_outcomes(LITERT).known, Budget(max_artifact_bytes=500))
    environment = PlanEnvironment([limited], lanes=8, trials=4)
    rng = np.random.default_rng(0)
    step, broken, costs = environment.reset(), 0, []
    rows: list[np.ndarray] = []
    for _ in range(8 * (len(limited.codec.positions) + 1)):
        action = allowed_actions(step, rng)
        rows.append(action)
        step = environment.step(action)
        if step.last.any():
            built = Arena.of(limited).sheet.links.normal(np.stack(rows[1:], axis=1))
            over = limited.artifact_bytes(built) > 500
            assert np.all(step.reward[over] <= 0.0)
            broken += int(over.sum())
            costs += step.reward[over].tolist()
            rows = []
    assert broken > 10
    assert min(costs) < 0.0, "multipliers rise while the limit is broken"


def test_even_a_multiplier_of_zero_lets_nothing_earn_beyond_the_budget() -> None:
    """The first episodes, whose multipliers are still 0: the fastest plans are over the limit and earn 0."""
    limited = SizedOutcomes(chain_outcomes().known, Budget(max_artifact_bytes=900))
    sheet = Arena.of(limited).sheet
    rows = np.zeros((1, 2), np.int16)
    found = outcome_of(limited, sheet, rows)
    assert not found.counts[0]
    assert found.violations["artifact"][0] == pytest.approx(1000 / 900 - 1)


@pytest.mark.parametrize(
    "task",
    [
        residual_outcomes(budget=Budget(min_speedup=100.0)),
        residual_outcomes(budget=Budget(max_latency_ms=1e-6)),
        SizedOutcomes(residual_outcomes().known, Budget(max_peak_memory_bytes=10)),
    ],
)
def test_a_task_whose_every_plan_breaks_the_budget_is_refused(task: OutcomeTask) -> None:
    with pytest.raises(BadInputError, match=r"breaks the budget.*over its limit.*raise the budget"):
        PlanEnvironment([task], lanes=1, trials=1)


def test_a_limit_that_a_task_cannot_tell_is_refused() -> None:
    with pytest.raises(BadInputError, match="cannot tell"):
        PlanEnvironment([residual_outcomes(budget=Budget(max_artifact_bytes=1))], lanes=1, trials=1)


def test_a_model_with_nothing_to_decide_is_refused() -> None:
    with pytest.raises(BadInputError, match="nothing to decide"):
        PlanEnvironment([no_unit_outcomes()], lanes=1, trials=1)


@pytest.mark.parametrize(("lanes", "trials"), [(0, 1), (1, 0), (9, 1)])
def test_numbers_out_of_range_are_refused(lanes: int, trials: int) -> None:
    with pytest.raises(BadInputError, match="lanes must be"):
        PlanEnvironment([chain_outcomes()], lanes, trials)


def test_no_tasks_are_refused() -> None:
    with pytest.raises(BadInputError, match="at least one task"):
        PlanEnvironment([], 1, 1)


def test_failed_episodes_are_told_and_typed() -> None:
    environment = PlanEnvironment([residual_outcomes(broken=1)], lanes=4, trials=2)
    steps = played(environment, 80)
    failed = sum(int(step.failed.sum()) for step in steps)
    assert 0 < failed == len(environment.failures)
    assert {failure.kind for failure in environment.failures} == {FailureKind.RUNTIME_ERROR}
    assert any(step.last.any() and not step.failed[step.last].all() for step in steps)


def test_a_task_whose_every_plan_fails_is_refused() -> None:
    class Silent(KnownOutcomes):
        def accuracy(self, rows: np.ndarray) -> np.ndarray:
            return np.full(len(rows), np.nan)

    with pytest.raises(BadInputError, match="failed"):
        PlanEnvironment([Silent(chain_outcomes().known)], 1, 1)


def test_tasks_come_in_turn() -> None:
    tasks = [chain_outcomes(), one_unit_outcomes()]
    environment = PlanEnvironment(tasks, lanes=1, trials=1, seed=5)
    lengths, count = [], 0
    for step in played(environment, 60)[1:]:
        count += 1
        if step.fresh[0]:
            lengths.append(count)
            count = 0
    assert abs(lengths.count(2) - lengths.count(3)) <= 1


def test_another_seed_is_another_order() -> None:
    tasks = [chain_outcomes(), one_unit_outcomes()]
    environment = PlanEnvironment(tasks, lanes=1, trials=1)

    def ends(seed: int) -> list[bool]:
        return [bool(step.last[0]) for step in played(environment.seeded(seed), 60)]

    assert ends(0) == ends(0)
    assert len({tuple(ends(seed)) for seed in range(6)}) > 1


def test_mended_rows_are_those_of_the_codec() -> None:
    task = residual_outcomes()
    links, codec = Arena.of(task).sheet.links, task.codec
    rng = np.random.default_rng(0)
    rows = (rng.random((200, len(codec.positions))) * codec.counts).astype(np.int16)
    assert np.array_equal(links.normal(rows), codec.normal(rows))


def test_the_budget_of_a_sheet_is_the_tightest() -> None:
    task = chain_outcomes()
    base = task.context.base_latency_ms[LITERT]
    budget = Budget(max_latency_ms=0.9 * base, min_speedup=1.25)
    limited = replace(task, budget=budget)
    assert Arena.of(limited).sheet.limit == pytest.approx(0.8)
