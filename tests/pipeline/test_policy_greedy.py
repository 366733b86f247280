from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from known_tasks import residual_task
from policy_suite import PolicySuite
from small_graphs import context_of, latency_of, residual_graph, trial_of

from pipeline.data.base import Metric
from pipeline.experience import Trial
from pipeline.pareto import hypervolume
from pipeline.plan import CompressionPlan
from pipeline.policy import load_policy
from pipeline.policy.base import Change, PolicyContext
from pipeline.policy.effect_model import LEAST_DROP_SHARE, EffectModel, State
from pipeline.tables.trial_task import area, point
from pipeline.task import Budget

ONNX, LITERT = "local-onnxruntime", "local-litert"
NOTHING = State({}, frozenset())


def searched(context: PolicyContext, count: int, policy: str = "greedy") -> list[Trial]:
    history: list[Trial] = []
    for number in range(count):
        plan = load_policy(policy).propose(context, history, 1)[0]
        history.append(trial_of(context.graph, plan, number, policy))
    return history


def speedups(context: PolicyContext, history: list[Trial], target: str) -> list[float]:
    return [context.base_latency_ms[target] / trial.latency_ms[target] for trial in history]


class TestGreedy(PolicySuite):
    name = "greedy"


def test_the_targets_take_turns(context: PolicyContext) -> None:
    first, second = load_policy("greedy").propose(context, [], 2)
    assert len(first.removed) > len(second.removed), "removing layers is what helps the first target"
    assert sum(1 - c.keep_ratio for c in second.units.values()) > sum(
        1 - c.keep_ratio for c in first.units.values()
    )


def test_rungs_are_spread_over_the_wanted_speedups(context: PolicyContext) -> None:
    found = sorted(speedups(context, searched(context, 14), LITERT))
    assert found[0] < 1.5
    assert found[-1] > 2.2
    assert max(fast / slow for slow, fast in pairwise(found)) < 1.6


@pytest.mark.parametrize("target", [ONNX, LITERT])
@pytest.mark.parametrize("other", ["uniform", "random"])
def test_beats_policies_that_know_nothing(context: PolicyContext, other: str, target: str) -> None:
    """More of the plane of latency and accuracy is dominated after as many trials."""

    def dominated(policy: str) -> float:
        points = [(t.latency_ms[target], t.accuracy or 0.0) for t in searched(context, 14, policy)]
        return hypervolume(points, (context.base_latency_ms[target], 40.0))

    assert dominated("greedy") > 1.02 * dominated(other)


@pytest.mark.parametrize(
    "budget", [Budget(min_speedup=1.8), Budget(max_latency_ms=0.3 / 1.8)], ids=["speed-up", "latency"]
)
def test_rungs_begin_where_the_budget_does(budget: Budget) -> None:
    context = context_of(residual_graph(), budget=budget)
    history = searched(context, 6)
    assert min(speedups(context, history[1::2], LITERT)) > 1.6


def test_refines_between_what_meets_the_accuracy_budget_and_what_does_not(context: PolicyContext) -> None:
    """Recovery is made to cost a point at twice the speed, so that is where the next trials must lie."""
    history = searched(context, 14)
    speeds = speedups(context, history, LITERT)
    recovered = [
        trial.model_copy(update={"accuracy_recovered": context.float_accuracy - (speed - 1.0)})
        for trial, speed in zip(history, speeds, strict=True)
    ]
    slower, faster = max(s for s in speeds if s < 2.0), min(s for s in speeds if s > 2.0)
    only = replace(context, targets=context.targets[1:])
    plan = load_policy("greedy").propose(only, recovered, 1)[0]
    assert slower < context.base_latency_ms[LITERT] / latency_of(context.graph, plan, LITERT) < faster


def test_sizes_have_to_do_where_nothing_was_probed(context: PolicyContext) -> None:
    plans = load_policy("greedy").propose(replace(context, effects={}), [], 3)
    speedups = [context.base_latency_ms[LITERT] / latency_of(context.graph, p, LITERT) for p in plans]
    assert len(plans) == 3
    assert min(speedups) > 1.1


@pytest.mark.parametrize("probed", [True, False])
def test_goes_on_for_as_long_as_there_are_plans(probed: bool) -> None:
    task = residual_task(LITERT, probed=probed)
    history: list[Trial] = []
    for number in range(80):
        (plan,) = load_policy("greedy").propose(task.context, history, 1)
        history.append(task.run(plan, number, "greedy"))
    areas = [area([point(task, trial) for trial in history[:count]]) for count in (5, 20, 80)]
    assert areas[0] > (0.2 if probed else 0.12)
    assert areas[2] > 1.02 * areas[1] > 1.05 * areas[0]


def test_changes_that_make_it_slower_are_never_taken(context: PolicyContext) -> None:
    worse = Change(block=context.space.removable[0])
    effect = context.effects[worse]
    slower = effect.model_copy(update={"latency_ms": {n: 2 * v for n, v in context.base_latency_ms.items()}})
    changed = replace(context, effects={**context.effects, worse: slower})
    plans = load_policy("greedy").propose(changed, [], 40)
    assert [plan for plan in plans if worse.block in plan.removed] == []


@pytest.mark.parametrize(
    "spoilt", [{"accuracy": float("nan")}, {"latency_ms": {}}], ids=["no accuracy", "no latency"]
)
def test_a_change_whose_probe_failed_is_left_alone(context: PolicyContext, spoilt: dict[str, object]) -> None:
    failed = Change(block=context.space.removable[0])
    effect = context.effects[failed].model_copy(update=spoilt)
    changed = replace(context, effects={**context.effects, failed: effect})
    plans = load_policy("greedy").propose(changed, [], 40)
    assert len(plans) > 20
    assert [plan for plan in plans if failed.block in plan.removed] == []


def test_single_changes_are_predicted_as_measured(context: PolicyContext) -> None:
    model = EffectModel(context)
    for change in model.changes:
        keep = {change.unit: change.keep_ratio} if change.unit and change.keep_ratio else {}
        state = State.of(context.space.plan(keep, [change.block] if change.block else []))
        effect = context.effects[change]
        assert model.latency_ms(state, LITERT) == pytest.approx(effect.latency_ms[LITERT], rel=0.02)
        # Linked units lie in different stages, where drops add up less than in one.
        drop = context.drop(effect.accuracy)
        if drop > 3 * LEAST_DROP_SHARE * context.drop(context.chance):
            assert model.drop(state) == pytest.approx(drop, rel=0.05, abs=0.01)


def test_a_removed_block_takes_its_units_changes_along(context: PolicyContext) -> None:
    model = EffectModel(context)
    removed = State({}, frozenset({"layer1.1"}))
    both = State({"layer1.1.conv1": 0.5}, frozenset({"layer1.1"}))
    assert model.latency_ms(both, ONNX) == pytest.approx(model.latency_ms(removed, ONNX))


def test_changes_to_one_stage_hurt_more_than_their_sum(context: PolicyContext) -> None:
    model = EffectModel(context)
    a, b, far = "layer2.1.conv1", "layer2.2.conv1", "layer3.1.conv1"

    def drop(*units: str) -> float:
        return model.drop(State(dict.fromkeys(units, 0.5), frozenset()))

    assert model.drop(NOTHING) == 0.0
    assert drop(a, b) > 1.1 * (drop(a) + drop(b))
    assert drop(a, far) == pytest.approx(drop(a) + drop(far))


def test_what_was_observed_corrects_the_predicted_latency(context: PolicyContext) -> None:
    plan = context.space.uniform(0.5, context.space.removable[:2])
    base = context.base_latency_ms[ONNX]
    predicted = EffectModel(context).latency_ms(State.of(plan), ONNX)
    observed = base - 0.5 * (base - predicted)
    trial = trial_of(context.graph, plan, 0, "greedy").model_copy(update={"latency_ms": {ONNX: observed}})
    assert EffectModel(context, [trial]).latency_ms(State.of(plan), ONNX) == pytest.approx(observed)


def test_lower_may_be_better() -> None:
    """The same world told as an error: the same plans come out."""
    context = context_of(residual_graph())
    errors = {c: e.model_copy(update={"accuracy": 100.0 - e.accuracy}) for c, e in context.effects.items()}
    turned = replace(
        context,
        metric=Metric.MSE,
        float_accuracy=100.0 - context.float_accuracy,
        chance=100.0 - context.chance,
        effects=errors,
    )
    policy = load_policy("greedy")
    assert policy.propose(turned, [], 5) == policy.propose(context, [], 5)


def test_a_width_that_was_not_probed_goes_by_the_nearest() -> None:
    context = context_of(residual_graph())
    few = {c: e for c, e in context.effects.items() if c.keep_ratio in (None, 0.5, 0.25)}
    model = EffectModel(replace(context, effects=few))
    unit = "layer3.1.conv1"
    assert model.drop(State({unit: 0.375 + 0.1}, frozenset())) == model.drop(State({unit: 0.5}, frozenset()))
    assert all(c.keep_ratio in (None, 0.5, 0.25) for c in model.changes)


def test_plans_stay_whole_when_the_original_is_all_there_is(context: PolicyContext) -> None:
    assert EffectModel(context).latency_ms(State.of(CompressionPlan()), ONNX) == context.base_latency_ms[ONNX]
