from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from known_tasks import KnownTask, residual_task
from small_graphs import residual_graph

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy import load_policy
from pipeline.policy.base import PolicyContext
from pipeline.search import changes_to_probe
from pipeline.tables.claims import Transfer, first_plan, mean_slower, probes_of, transfers
from pipeline.tables.trial_task import point


@dataclass(frozen=True)
class Fixed:
    """Proposes these, in order; by target where they differ."""

    plans: dict[str, tuple[CompressionPlan, ...]]
    name: str = "fixed"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        plans = self.plans.get(context.targets[0].name, self.plans.get("", ()))
        return list(plans[len(history) : len(history) + count])


TASK = residual_task("local-litert", probed=False)
SPACE = TASK.context.space


def test_the_uniform_plan_itself_is_as_good_as_the_uniform_plan() -> None:
    found = first_plan(Fixed({"": (SPACE.uniform(0.5),)}), TASK, 0)
    assert found is not None
    assert found.gain == pytest.approx(found.uniform_gain)
    assert not found.above


def test_a_first_plan_is_held_against_the_uniform_one_of_its_latency() -> None:
    late = CompressionPlan(units={"layer3.2.conv1": SPACE.uniform(0.5).units["layer3.2.conv1"]})
    found = first_plan(Fixed({"": (late,)}), TASK, 0)
    own = point(TASK, TASK.run(late, 1, "x"))
    assert found is not None and own is not None
    assert (found.ratio, found.gain) == own
    assert found.uniform_gain < 1.0
    assert found.above == (found.gain > found.uniform_gain)


def test_a_policy_without_plans_has_no_first_one() -> None:
    assert first_plan(Fixed({}), TASK, 0) is None


def test_only_policies_that_read_effects_want_probes() -> None:
    probed, bare = residual_task(), residual_task(probed=False)
    wanted = len(changes_to_probe(probed.graph, probed.context.space))
    counts = [probes_of(load_policy(name), probed, bare) for name in ("random", "uniform", "knapsack")]
    assert counts == [0, 0, wanted]


class Named(KnownTask):
    @property
    def name(self) -> str:
        return f"net/data/{self.target}@1"


def test_a_plan_for_another_target_is_measured_where_it_was_not_meant() -> None:
    # Litert in the make-believe world feels MACs, ONNX Runtime layers.
    narrow, short = SPACE.uniform(0.875), SPACE.plan({}, ["layer1.0"])
    tasks = [Named(TASK.graph, name) for name in ("local-litert", "local-onnxruntime")]
    policy = Fixed({"local-litert": (narrow,), "local-onnxruntime": (short,)})
    found = {(one.of, one.on): one for one in transfers(policy, tasks, 5, 0)}
    if not found:
        pytest.fail("no plan was good enough to compare")
    for (_, on), one in found.items():
        target = on.split("/")[-1].removesuffix("@1")
        other = narrow if target == "local-onnxruntime" else short
        task = next(task for task in tasks if task.name == on)
        assert one.foreign_ms == task.run(other, 0, "x").latency_ms[target]
        assert one.slower == pytest.approx(one.foreign_ms / one.own_ms - 1.0)
    assert any(one.slower > 0 for one in found.values())


def test_tasks_of_other_models_are_no_pairs() -> None:
    smaller = KnownTask(residual_graph(2), "local-onnxruntime")
    assert transfers(load_policy("uniform"), [TASK, smaller], 10, 0) == []


def test_the_mean_of_slower_and_faster_is_geometric() -> None:
    pair = [Transfer("a", "b", 0, 2.0, 1.0), Transfer("a", "b", 1, 0.5, 1.0)]
    assert mean_slower(pair) == pytest.approx(0.0)
