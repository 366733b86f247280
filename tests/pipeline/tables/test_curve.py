from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan

import pytest
from known_tables import known_table
from known_tasks import KnownTask, chain_task, residual_task
from small_graphs import graph_of, layer, unit

from device_bench.errors import BadInputError
from device_bench.protocol import Failure, FailureKind
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy import load_policy
from pipeline.policy.base import PolicyContext
from pipeline.tables.curve import (
    Curve,
    best_known_area,
    curve_of,
    front_of,
    known_points,
    normalised,
    run_policy,
)
from pipeline.tables.table_task import TableTask
from pipeline.tables.trial_task import area

# Those that need no trained file.
UNTRAINED = ("greedy", "knapsack", "nsga2", "tpe", "random", "uniform")


@dataclass(frozen=True)
class Failing(KnownTask):
    """The target is gone from the fourth trial on."""

    def run(self, plan: CompressionPlan, number: int, origin: str) -> Trial:
        if number < 4:
            return super().run(plan, number, origin)
        failure = Failure(kind=FailureKind.UNREACHABLE, message="the board does not answer")
        return Trial(number=number, plan=plan, origin=origin, failure=failure)


@dataclass(frozen=True)
class Overflowing(KnownTask):
    """Every second plan has outputs that are not finite."""

    def run(self, plan: CompressionPlan, number: int, origin: str) -> Trial:
        trial = super().run(plan, number, origin)
        return trial.model_copy(update={"accuracy": nan}) if number % 2 else trial


@dataclass(frozen=True)
class Seen:
    """Keeps what it was told."""

    contexts: list[PolicyContext]
    histories: list[int]
    name: str = "seen"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        self.contexts.append(context)
        self.histories.append(len(history))
        return load_policy("uniform").propose(context, history, count)


def test_a_policy_sees_its_seed_and_all_that_was_tried() -> None:
    policy = Seen([], [])
    trials = run_policy(policy, residual_task(), 5, seed=7)
    assert policy.histories == [0, 1, 2, 3, 4]
    assert {context.seed for context in policy.contexts} == {7}
    assert [(trial.number, trial.origin) for trial in trials] == [(n, "seen") for n in range(1, 6)]


def test_equal_seeds_give_equal_trials_and_others_do_not() -> None:
    first, again, other = (run_policy(load_policy("random"), residual_task(), 6, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_area_never_falls_and_stands_still_once_plans_have_run_out() -> None:
    task = chain_task()
    trials = run_policy(load_policy("random"), task, 60, seed=0)
    curve = curve_of(task, "random", 0, trials)
    assert len(trials) < 60
    assert list(curve.areas) == sorted(curve.areas)
    assert curve.area_after(200) == curve.areas[-1] == curve.area_after(len(trials))


def test_area_after_counts_the_first_trials_only() -> None:
    curve = Curve("p", "t", 0, ((0.5, 0.9), None, (0.25, 0.9)))
    assert curve.areas == pytest.approx((0.5 * 0.4, 0.5 * 0.4, 0.75 * 0.4))
    assert curve.area_after(2) == pytest.approx(0.2)


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_target_that_vanishes_is_a_failure_and_the_search_goes_on(name: str) -> None:
    task = Failing(residual_task().graph)
    trials = run_policy(load_policy(name), task, 9, seed=0)
    assert [trial.failure is None for trial in trials] == [True] * 3 + [False] * 6
    assert {trial.failure.kind for trial in trials if trial.failure} == {FailureKind.UNREACHABLE}
    curve = curve_of(task, name, 0, trials)
    assert curve.areas[2:] == (curve.areas[2],) * 7
    assert len({trial.plan.plan_id for trial in trials}) == 9


@pytest.mark.parametrize("name", UNTRAINED)
def test_numbers_that_are_none_add_nothing_and_stop_nothing(name: str) -> None:
    task = Overflowing(residual_task().graph)
    curve = curve_of(task, name, 0, run_policy(load_policy(name), task, 8, seed=0))
    assert [point is None for point in curve.points] == [True, False] * 4
    assert 0.0 <= curve.areas[-1] < 1.0


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_model_of_one_unit_is_searched_to_its_end(name: str) -> None:
    layers = [layer("only", 8, 32, 4), layer("classes", 32, 3, 1)]
    graph = graph_of(layers, [unit("only", layers[:1]), unit("classes", layers[1:], prunable=False)], [])
    task = KnownTask(graph)
    trials = run_policy(load_policy(name), task, 30, seed=0)
    shapes = {trial.plan.keep_ratio("only") for trial in trials}
    assert shapes <= set(task.context.space.choices["only"]) - {1.0}
    assert 1 <= len(trials) < 30


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_budget_that_no_plan_meets_stops_no_search(name: str) -> None:
    task = residual_task()
    budget = task.context.budget.model_copy(update={"max_latency_ms": 1e-6})

    class Hopeless(KnownTask):
        @property
        def context(self) -> PolicyContext:  # type: ignore[override]
            return replace(task.context, budget=budget)

    trials = run_policy(load_policy(name), Hopeless(task.graph), 4, seed=0)
    assert len(trials) == 4


def test_fewer_than_one_trial_is_refused() -> None:
    with pytest.raises(BadInputError, match="trials must be at least 1; got 0"):
        run_policy(load_policy("random"), residual_task(), 0, 0)


def test_points_of_a_table_are_what_its_task_answers() -> None:
    table = known_table()
    task = TableTask.of(table, "local-litert@1")
    points = known_points(task)
    assert len(points) == len(table.options)
    trial = task.run(task.codec.decode(table.options[3]), 1, "x")
    assert points[3] == pytest.approx(curve_of(task, "x", 0, [trial]).points[0])
    assert known_points(residual_task()) == []


def test_the_best_known_front_holds_only_what_no_other_beats() -> None:
    points = [(0.5, 0.9), None, (0.6, 0.8), (0.3, 0.7)]
    assert front_of(points) == [(0.3, 0.7), (0.5, 0.9)]
    assert best_known_area(points) == area([(0.3, 0.7), (0.5, 0.9)])


def test_shares_are_of_the_best_and_nothing_of_nothing_is_nothing() -> None:
    assert normalised([0.1, 0.2], 0.4) == pytest.approx([0.25, 0.5])
    assert normalised([0.0], 0.0) == [0.0]
