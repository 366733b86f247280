"""What every policy must do; a test class inherits it and sets `name`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy import load_policy
from pipeline.policy.base import PolicyContext, shape_of


class PolicySuite:
    """Fixtures to give: `context` (room for dozens of plans), `small_context` (for a few), `try_plan`."""

    name: str

    def test_is_known_by_its_name(self) -> None:
        assert load_policy(self.name).name == self.name

    def test_proposes_as_many_as_asked(self, context: PolicyContext) -> None:
        policy = load_policy(self.name)
        assert [len(policy.propose(context, [], count)) for count in (0, 1, 7)] == [0, 1, 7]

    def test_proposals_are_plans_of_the_space(self, context: PolicyContext) -> None:
        plans = load_policy(self.name).propose(context, [], 12)
        assert [plan for plan in plans if not context.space.contains(plan)] == []

    def test_is_deterministic(self, context: PolicyContext, try_plan: Callable[..., Trial]) -> None:
        history = [
            try_plan(context, plan, number, self.name)
            for number, plan in enumerate(load_policy(self.name).propose(context, [], 3))
        ]
        first = load_policy(self.name).propose(context, history, 4)
        assert first == load_policy(self.name).propose(context, history, 4)

    def test_leaves_history_and_context_as_they_are(
        self, context: PolicyContext, try_plan: Callable[..., Trial]
    ) -> None:
        history = [try_plan(context, context.space.uniform(0.5), 0, "uniform")]
        effects, before = dict(context.effects), list(history)
        load_policy(self.name).propose(context, history, 3)
        assert (history, dict(context.effects)) == (before, effects)

    @pytest.mark.parametrize("batch", [1, 4])
    def test_never_repeats_itself_or_the_original(
        self, context: PolicyContext, try_plan: Callable[..., Trial], batch: int
    ) -> None:
        policy = load_policy(self.name)
        history: list[Trial] = []
        while len(history) < 24:
            plans = policy.propose(context, history, batch)
            assert len(plans) == batch
            history += [try_plan(context, p, len(history) + i, self.name) for i, p in enumerate(plans)]
        shapes = [shape_of(trial.plan) for trial in history]
        assert len(set(shapes)) == len(shapes)
        assert shape_of(CompressionPlan()) not in shapes

    def test_does_not_repeat_a_shape_tried_with_another_recovery(
        self, context: PolicyContext, try_plan: Callable[..., Trial]
    ) -> None:
        policy = load_policy(self.name)
        plan = policy.propose(context, [], 1)[0]
        tried = plan.model_copy(update={"recovery": plan.recovery.model_copy(update={"epochs": 3.0})})
        history = [try_plan(context, tried, 0, "someone else")]
        assert shape_of(plan) not in [shape_of(p) for p in policy.propose(context, history, 6)]

    def test_ends_when_the_space_is_exhausted(
        self, small_context: PolicyContext, try_plan: Callable[..., Trial]
    ) -> None:
        policy = load_policy(self.name)
        history: list[Trial] = []
        for _ in range(small_context.space.size()):
            plans = policy.propose(small_context, history, 5)
            history += [try_plan(small_context, p, len(history) + i, self.name) for i, p in enumerate(plans)]
            if len(plans) < 5:
                break
        assert policy.propose(small_context, history, 5) == []
        assert 1 <= len(history) < small_context.space.size()

    def test_lives_with_failed_trials(
        self, context: PolicyContext, try_plan: Callable[..., Trial], failed: Callable[[Trial], Trial]
    ) -> None:
        policy = load_policy(self.name)
        plans = policy.propose(context, [], 4)
        history = [failed(try_plan(context, plan, i, self.name)) for i, plan in enumerate(plans)]
        diverged = {"accuracy": float("nan"), "accuracy_recovered": float("nan")}
        history.append(
            try_plan(context, context.space.uniform(0.5), 4, "uniform").model_copy(update=diverged)
        )
        more = policy.propose(context, history, 4)
        assert len(more) == 4
        assert not {shape_of(plan) for plan in more} & {shape_of(plan) for plan in plans}
