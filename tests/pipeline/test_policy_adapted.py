from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from known_tasks import chain_task, residual_task

from device_bench.errors import BadInputError
from pipeline.experience import Trial
from pipeline.policy import load_policy
from pipeline.policy.adapted import AdaptedPolicy
from pipeline.policy.base import PolicyContext
from pipeline.policy.plan_features import NAMES
from pipeline.policy.policy_file import PolicyFile, shipped_policy
from pipeline.tables.trial_task import area, point


@pytest.mark.parametrize("name", ["maml", "fomaml", "reptile", "anil"])
def test_the_shipped_file_is_of_its_learner_and_of_these_features(name: str) -> None:
    shipped = shipped_policy(name)
    assert shipped.learner == name
    assert tuple(shipped.setting("features")) == NAMES


def areas(name: str, trials: int, *, probed: bool) -> list[float]:
    task = residual_task(probed=probed)
    context = replace(task.context, chance=task.chance)
    history: list[Trial] = []
    points, found = [], []
    while len(history) < trials:
        (plan,) = load_policy(name).propose(context, history, 1)
        history.append(task.run(plan, len(history), name))
        points.append(point(task, history[-1]))
        found.append(area(points))
    return found


def test_after_five_trials_it_is_far_above_ten_random_plans() -> None:
    assert areas("meta", 5, probed=True)[-1] > 1.2 * areas("random", 10, probed=True)[-1]


def test_it_also_finds_plans_where_nothing_was_probed() -> None:
    assert areas("meta", 10, probed=False)[-1] > areas("uniform", 10, probed=False)[-1]


def test_several_targets_are_served_in_turn(context: PolicyContext, try_plan: Callable[..., Trial]) -> None:
    plans = load_policy("meta").propose(context, [], 6)
    assert len({plan.plan_id for plan in plans}) == 6


def test_attributions_name_what_the_plan_changes_and_are_finite() -> None:
    task = residual_task()
    policy = AdaptedPolicy(shipped_policy("fomaml"))
    plan = task.context.space.plan({"layer3.1.conv1": 0.5}, ["layer1.0"])
    told = policy.attribute(task.context, [], plan)
    assert told.keys() == {"layer3.1.conv1", "layer1.0"}
    values = [value for parts in told.values() for value in parts.values()]
    assert np.isfinite(values).all()
    assert any(value != 0.0 for value in values)


def test_a_file_of_other_features_is_refused_with_what_to_do() -> None:
    shipped = shipped_policy("maml")
    other = PolicyFile("maml", {**shipped.settings, "features": ["width"]}, shipped.tensors)
    with pytest.raises(BadInputError, match="train it anew with `edgeloop meta-train"):
        AdaptedPolicy(other)


def test_a_task_with_one_unit_is_planned_to_its_end() -> None:
    task = chain_task()
    small = replace(task.context.space, widths={"first": task.context.space.widths["first"]})
    context = replace(task.context, space=small)
    plans = load_policy("meta").propose(context, [], 10)
    assert 1 <= len(plans) == small.size() - 1


def test_a_proposal_leaves_torch_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        load_policy("meta").propose(residual_task().context, [], 1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
