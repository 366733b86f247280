from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from known_tasks import residual_task
from small_graphs import accuracy_of, latency_of

from device_bench.errors import BadInputError
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy import load_policy
from pipeline.policy.base import Change, PolicyContext
from pipeline.policy.explainer import Explainer
from pipeline.policy.explanation import Explains, Reason, TargetExplanation

TARGET = "local-litert"
TASK = residual_task(TARGET)
CONTEXT = replace(
    TASK.context,
    chance=10.0,
    shares={TARGET: {unit.name: unit.macs / TASK.graph.macs for unit in TASK.graph.units} | {"other": 0.0}},
)


def history(count: int = 6) -> list[Trial]:
    plans = load_policy("knapsack").propose(CONTEXT, [], count)
    return [TASK.run(plan, number, "knapsack") for number, plan in enumerate(plans, start=1)]


def explained(
    plan: CompressionPlan,
    trials: Sequence[Trial] = (),
    context: PolicyContext = CONTEXT,
    policies: Mapping[str, object] | None = None,
) -> TargetExplanation:
    probed = frozenset(change for change in context.effects if change.keep_ratio in (None, 0.5, 0.25))
    return Explainer(context, probed, trials, policies or {}).explain(TARGET, plan)


def by_name(found: TargetExplanation) -> dict[str, Reason]:
    return {reason.name: reason for reason in found.reasons}


PLAN = CONTEXT.space.plan({"layer3.1.conv1": 0.5, "layer2.0.conv1": 0.75}, ["layer1.1", "layer2.1"])


def test_every_unit_and_block_has_a_reason_in_forward_order() -> None:
    found = explained(PLAN)
    names = [reason.name for reason in found.reasons]
    assert sorted(names) == sorted(
        [unit.name for unit in CONTEXT.graph.units] + [block.name for block in CONTEXT.graph.blocks]
    )
    assert names.index("layer1.1") + 1 == names.index("layer1.1.conv1") < names.index("layer3.1")
    assert all(reason.why for reason in found.reasons)


def test_says_what_is_kept_and_what_leaves_with_a_block() -> None:
    reasons = by_name(explained(PLAN))
    assert (reasons["layer1.1"].kept, reasons["layer1.1.conv1"].kept) == (0.0, 0.0)
    assert reasons["layer1.1.conv1"].why == "leaves with layer1.1"
    assert reasons["layer3.1.conv1"].kept == 0.5
    assert reasons["layer3.2.conv1"].kept == 1.0
    assert reasons["linear"].why == "its channels are the model's outputs"


def test_the_measured_effect_of_the_one_change_is_told() -> None:
    reasons = by_name(explained(PLAN))
    effect = CONTEXT.effects[Change(unit="layer3.1.conv1", keep_ratio=0.5)]
    alone = reasons["layer3.1.conv1"].alone
    assert alone is not None
    assert alone.latency_ms == pytest.approx(effect.latency_ms[TARGET] - CONTEXT.base_latency_ms[TARGET])
    assert alone.drop == pytest.approx(CONTEXT.drop(effect.accuracy))
    assert reasons["layer3.1.conv1"].measured
    assert not reasons["layer2.0.conv1"].measured, "its width lies between two probed ones"
    assert reasons["layer3.2.conv1"].alone is None


def test_undoing_a_change_is_predicted_as_it_turns_out() -> None:
    reasons = by_name(explained(PLAN))
    for name, without in {
        "layer2.1": CONTEXT.space.plan({"layer3.1.conv1": 0.5, "layer2.0.conv1": 0.75}, ["layer1.1"]),
        "layer3.1.conv1": CONTEXT.space.plan({"layer2.0.conv1": 0.75}, ["layer1.1", "layer2.1"]),
    }.items():
        undone = reasons[name].undone
        slower = latency_of(TASK.graph, without, TARGET) - latency_of(TASK.graph, PLAN, TARGET)
        assert undone is not None
        assert undone.latency_ms == pytest.approx(slower, rel=0.1)
        assert undone.drop < 0.0 < accuracy_of(TASK.graph, without) - accuracy_of(TASK.graph, PLAN)


def test_one_step_further_saves_time_and_loses_points() -> None:
    reasons = by_name(explained(PLAN))
    for name in ("layer3.1.conv1", "layer3.2.conv1", "layer1.2"):
        further = reasons[name].further
        assert further is not None
        assert further.latency_ms < 0.0 < further.drop
    assert (reasons["layer3.1.conv1"].further_kept, reasons["layer1.2"].further_kept) == (0.375, 0.0)
    assert reasons["layer1.1"].further is None
    assert reasons["layer1.2"].why.startswith("left whole: without it, ")


def test_the_trials_correct_what_is_predicted() -> None:
    trial = TASK.run(PLAN, 1, "knapsack")
    halved = CONTEXT.base_latency_ms[TARGET] - 0.5 * (
        CONTEXT.base_latency_ms[TARGET] - float(explained(PLAN).predicted_latency_ms or 0.0)
    )
    slow = trial.model_copy(update={"latency_ms": {TARGET: halved}})
    plain, corrected = explained(PLAN), explained(PLAN, [slow])
    assert corrected.predicted_latency_ms == pytest.approx(halved)
    before, after = by_name(plain)["layer2.1"].undone, by_name(corrected)["layer2.1"].undone
    assert before is not None
    assert after is not None
    assert after.latency_ms == pytest.approx(0.5 * before.latency_ms)


def test_the_trial_of_the_plan_is_named_with_its_figures() -> None:
    trials = history()
    done = trials[3].model_copy(update={"accuracy_recovered": 88.0})
    found = explained(done.plan, [*trials[:3], done, *trials[4:]])
    assert (found.trial, found.policy, found.latency_ms) == (4, "knapsack", done.latency_ms[TARGET])
    assert found.recovered_drop == pytest.approx(CONTEXT.float_accuracy - 88.0)
    assert found.drop == pytest.approx(CONTEXT.drop(float(done.accuracy or 0.0)))


def test_latency_shares_of_blocks_are_those_of_their_layers() -> None:
    reasons = by_name(explained(PLAN))
    block = next(one for one in CONTEXT.graph.blocks if one.name == "layer1.1")
    assert reasons["layer1.1"].latency_share == pytest.approx(block.macs / CONTEXT.graph.macs)
    assert reasons["layer1.1"].macs_share == pytest.approx(block.macs / CONTEXT.graph.macs)


def test_without_probes_and_shares_it_says_what_is_missing() -> None:
    bare = replace(CONTEXT, effects={}, shares={})
    trials = [TASK.run(PLAN, 1, "random")]
    found = explained(PLAN, trials, bare)
    assert any("what single changes do was not measured" in line for line in found.missing)
    assert any("could not tell where its latency goes" in line for line in found.missing)
    assert {(r.alone, r.undone, r.further, r.latency_share) for r in found.reasons} == {(None,) * 4}
    assert found.predicted_drop is None
    assert by_name(found)["layer1.1"].why == "removed"


def test_the_original_is_explained_too() -> None:
    found = explained(CompressionPlan(), history())
    assert any("this is the original" in line for line in found.missing)
    assert {reason.kept for reason in found.reasons} == {1.0}


class Telling:
    """A policy that gives reasons; it is asked with what was known when it decided."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def attribute(
        self, context: PolicyContext, history: Sequence[Trial], plan: CompressionPlan
    ) -> dict[str, dict[str, float]]:
        self.asked = [trial.number for trial in history]
        return {"layer3.1.conv1": {"latency share": 0.4, "depth": -0.1}}


def test_attributions_of_the_policy_are_passed_on() -> None:
    trials, policy = history(), Telling()
    assert isinstance(policy, Explains)
    found = explained(trials[2].plan, trials, policies={"knapsack": policy})
    assert policy.asked == [1, 2]
    assert by_name(found)["layer3.1.conv1"].attributions == {"latency share": 0.4, "depth": -0.1}
    assert by_name(found)["layer1.1"].attributions == {}
    assert not any("attributions" in line for line in found.missing)
    silent = explained(trials[2].plan, trials, policies={"knapsack": load_policy("knapsack")})
    assert any("policy knapsack gives no attributions" in line for line in silent.missing)


def test_linked_widths_are_undone_together() -> None:
    narrow = CONTEXT.space.plan({"conv1": 0.5})
    undone = by_name(explained(narrow))["conv1"].undone
    assert undone is not None
    assert undone.latency_ms > 0.0


def test_another_target_is_an_error() -> None:
    with pytest.raises(BadInputError, match="the run has no target elsewhere; it has local-litert"):
        Explainer(CONTEXT, frozenset(), [], {}).explain("elsewhere", PLAN)
