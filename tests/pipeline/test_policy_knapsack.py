from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from known_tasks import KnownTask, chain_task, residual_task
from policy_suite import PolicySuite
from small_graphs import context_of, residual_graph

from pipeline.experience import Trial
from pipeline.policy import load_policy
from pipeline.policy.area_gain import Staircase
from pipeline.policy.base import PolicyContext
from pipeline.policy.effect_model import EffectModel, State
from pipeline.policy.effect_table import effect_table
from pipeline.policy.knapsack import knapsack_front, knapsack_row
from pipeline.tables.trial_task import area, point

ONNX, LITERT = "local-onnxruntime", "local-litert"


class TestKnapsack(PolicySuite):
    name = "knapsack"


def searched(task: KnownTask, count: int, policy: str = "knapsack") -> list[Trial]:
    history: list[Trial] = []
    while len(history) < count:
        plans = load_policy(policy).propose(task.context, history, 1)
        if not plans:
            break
        history.append(task.run(plans[0], len(history), policy))
    return history


def area_of(task: KnownTask, trials: list[Trial]) -> float:
    return area([point(task, trial) for trial in trials])


def all_rows(context: PolicyContext) -> np.ndarray:
    codec = effect_table(context).codec
    return codec.normal(np.array(list(product(*map(range, codec.counts))), dtype=np.int16))


@pytest.mark.parametrize("target", [ONNX, LITERT])
@pytest.mark.parametrize("probed", [True, False])
def test_no_plan_of_a_small_residual_network_is_predicted_better(target: str, probed: bool) -> None:
    """Every one of some thousand plans is looked at: two blocks, linked trunks, inner units."""
    task = KnownTask(residual_graph(2), target, probed)
    table = effect_table(task.context)
    rows = np.unique(all_rows_of_few_widths(task.context), axis=0)
    latency, drop = table.latency_ms(rows, target, ()), table.drop(rows)
    for share in (0.9, 0.75, 0.6, 0.5):
        goal = share * task.context.base_latency_ms[target]
        row = knapsack_row(task.context, goal)[None]
        assert table.latency_ms(row, target, ())[0] <= goal
        assert table.drop(row)[0] <= 1.02 * drop[latency <= goal].min()


def all_rows_of_few_widths(context: PolicyContext) -> np.ndarray:
    codec = effect_table(context).codec
    options = [sorted({0, int(count) // 2, int(count) - 1}) for count in codec.counts]
    rows = np.array(list(product(*options)), dtype=np.int16)
    chosen = np.random.default_rng(0).permutation(len(rows))[:4000]
    return codec.normal(rows[chosen])


def test_finds_the_best_of_all_plans_where_there_are_few() -> None:
    task = chain_task()
    table, rows = effect_table(task.context), all_rows(task.context)
    latency, drop = table.latency_ms(rows, ONNX, ()), table.drop(rows)
    for goal in np.sort(latency)[:-1]:
        row = knapsack_row(task.context, float(goal))[None]
        assert table.drop(row)[0] == pytest.approx(drop[latency <= goal].min())


def test_a_goal_out_of_reach_gives_the_fastest() -> None:
    context = chain_task().context
    table = effect_table(context)
    fastest = table.latency_ms(all_rows(context), ONNX, ()).min()
    assert table.latency_ms(knapsack_row(context, 1e-6)[None], ONNX, ())[0] == pytest.approx(fastest)


def test_the_front_falls_in_drop_as_it_rises_in_latency() -> None:
    context = residual_task(LITERT).context
    front = knapsack_front(context)
    latencies, drops = [entry[0] for entry in front], [entry[1] for entry in front]
    assert len(front) > 50
    assert latencies == sorted(latencies)
    assert drops == sorted(drops, reverse=True)
    assert latencies[0] < 0.2 * context.base_latency_ms[LITERT] < 0.9 * latencies[-1]
    codec = effect_table(context).codec
    assert all(context.space.contains(codec.decode(row)) for _, _, row in front)


@pytest.mark.parametrize("target", [ONNX, LITERT])
def test_the_table_predicts_as_the_model_does(target: str) -> None:
    task = residual_task(target)
    plans = load_policy("random").propose(task.context, [], 60)
    history = [task.run(plan, number, "random") for number, plan in enumerate(plans[:8])]
    table, model = effect_table(task.context), EffectModel(task.context, history)
    rows = np.stack([table.codec.encode(plan) for plan in plans])
    states = [State.of(plan) for plan in plans]
    assert table.latency_ms(rows, target, history) == pytest.approx(
        [model.latency_ms(state, target) for state in states]
    )
    assert table.drop(rows) == pytest.approx([model.drop(state) for state in states])


def test_what_was_observed_corrects_the_predicted_drop() -> None:
    task = residual_task()
    table = effect_table(task.context)
    plan = task.context.space.uniform(0.5)
    row = table.codec.encode(plan)[None]
    worse = task.context.float_accuracy - 2.0 * table.drop(row)[0]
    trial = task.run(plan, 0, "uniform").model_copy(update={"accuracy": float(worse)})
    assert table.corrected_drop(row, [trial]) == pytest.approx(2.0 * table.drop(row))
    assert table.corrected_drop(row, []) == pytest.approx(table.drop(row))


def test_neighbours_are_single_changes_in_normal_form() -> None:
    table = effect_table(residual_task().context)
    row = table.codec.encode(table.context.space.uniform(0.5, table.context.space.removable[:1]))
    near = table.neighbours(row[None])
    assert len(near) > 30
    assert (table.codec.normal(near) == near).all()
    assert not (near == row).all(axis=1).any()


def test_contexts_of_other_effects_have_other_tables() -> None:
    context = residual_task().context
    assert effect_table(context) is effect_table(replace(context, seed=7))
    assert effect_table(context) is not effect_table(replace(context, effects=dict(context.effects)))


@pytest.mark.parametrize("target", [ONNX, LITERT])
@pytest.mark.parametrize("other", ["random", "uniform"])
def test_dominates_more_after_five_trials_than_others_after_forty(other: str, target: str) -> None:
    task = residual_task(target)
    assert area_of(task, searched(task, 5)) > 0.95 * area_of(task, searched(task, 40, other))
    assert area_of(task, searched(task, 20)) > area_of(task, searched(task, 40, other))


@pytest.mark.parametrize("probed", [True, False])
def test_goes_on_improving(probed: bool) -> None:
    task = residual_task(LITERT, probed=probed)
    history = searched(task, 80)
    areas = [area_of(task, history[:count]) for count in (1, 5, 20, 80)]
    assert len(history) == 80
    assert areas == sorted(areas)
    assert areas[3] > 1.02 * areas[2] > 1.04 * areas[1]


def test_a_batch_is_spread_over_the_front() -> None:
    task = residual_task(LITERT)
    plans = load_policy("knapsack").propose(task.context, [], 6)
    points = [point(task, task.run(plan, 0, "knapsack")) for plan in plans]
    costs = sorted(found[0] for found in points if found is not None)
    assert costs[-1] - costs[0] > 0.3


def test_keeps_to_the_latency_that_the_budget_allows() -> None:
    task = residual_task(LITERT)
    budget = task.context.budget.model_copy(update={"min_speedup": 2.5})
    context = replace(task.context, budget=budget)
    for plan in load_policy("knapsack").propose(context, [], 6):
        assert task.run(plan, 0, "knapsack").latency_ms[LITERT] < 1.1 * context.base_latency_ms[LITERT] / 2.5


def test_targets_take_turns() -> None:
    context = context_of(residual_graph())
    first, second = load_policy("knapsack").propose(context, [], 2)
    assert len(first.removed) > len(second.removed), "removing layers is what helps the first target"


class TestStaircase:
    POINTS = ((0.4, 0.7), (0.8, 0.9), (0.6, 0.6), (0.3, 0.4))

    def test_added_is_the_growth_of_the_area(self) -> None:
        stairs = Staircase.of(self.POINTS, 1.0, 0.5)
        rng = np.random.default_rng(1)
        cost, gain = rng.uniform(0.1, 1.2, 50), rng.uniform(0.3, 1.0, 50)
        grown = [area([*self.POINTS, (c, g)]) - area(self.POINTS) for c, g in zip(cost, gain, strict=True)]
        assert stairs.added(cost, gain) == pytest.approx(np.array(grown))

    def test_shortfall_ranks_what_adds_nothing(self) -> None:
        stairs = Staircase.of(self.POINTS, 1.0, 0.5)
        found = stairs.shortfall(np.array([0.5, 0.5, 0.9, 1.3]), np.array([0.65, 0.6, 0.8, 0.8]))
        assert found == pytest.approx([0.05, 0.1, 0.1, 0.4])

    def test_nothing_tried_leaves_everything_to_add(self) -> None:
        assert Staircase.of([], 1.0, 0.5).added(np.array([0.5]), np.array([0.9])) == pytest.approx(0.2)

    def test_more_than_the_most_gain_is_worth_no_more(self) -> None:
        rng = np.random.default_rng(2)
        cost, gain = rng.uniform(0.1, 1.2, 50), rng.uniform(0.3, 1.0, 50)
        capped = [(c, min(g, 0.65)) for c, g in self.POINTS]
        stairs = Staircase.of(self.POINTS, 1.0, 0.5, most_gain=0.65)
        grown = [area([*capped, (c, min(g, 0.65))]) - area(capped) for c, g in zip(cost, gain, strict=True)]
        assert stairs.added(cost, gain) == pytest.approx(np.array(grown))
        # What is slower than a plan of that gain adds nothing, however well it does.
        assert stairs.added(np.array([0.41]), np.array([1.0])) == pytest.approx(0.0)
