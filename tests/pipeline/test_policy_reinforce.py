from __future__ import annotations

from known_outcomes import chain_outcomes, one_unit_outcomes
from known_tasks import residual_task
from policy_suite import PolicySuite

from pipeline.experience import Trial
from pipeline.policy import load_policy
from pipeline.policy.base import shape_of
from pipeline.tables.trial_task import TrialTask, area, point


class TestReinforce(PolicySuite):
    name = "reinforce"


def searched(task: TrialTask, policy: str, count: int) -> list[Trial]:
    history: list[Trial] = []
    while len(history) < count:
        plan = load_policy(policy).propose(task.context, history, 1)[0]
        history.append(task.run(plan, len(history), policy))
    return history


def test_what_it_learned_from_good_trials_is_proposed_more_often() -> None:
    """A history in which only the plans without a certain block did well."""
    task = residual_task("local-litert")
    space = task.context.space
    block = space.removable[-1]
    policy = load_policy("reinforce")

    def share_without(history: list[Trial]) -> float:
        plans = policy.propose(task.context, history, 30)
        return sum(block in plan.removed for plan in plans) / len(plans)

    history = []
    for number in range(60):
        plan = load_policy("random").propose(task.context, history, 1)[0]
        trial = task.run(plan, number, "random")
        good = block in plan.removed
        # Each good plan is better than all before it, each other one worthless.
        accuracy = 60.0 + 0.4 * number if good else 12.0
        history.append(trial.model_copy(update={"accuracy": accuracy}))
    assert share_without(history) > share_without([]) + 0.2


def test_it_does_better_than_its_own_first_draws() -> None:
    """After 40 trials the front is larger than that of forty draws from the untrained policy."""
    task = residual_task("local-litert")
    learned = area([point(task, trial) for trial in searched(task, "reinforce", 40)])
    plans = load_policy("reinforce").propose(task.context, [], 40)
    drawn = area([point(task, task.run(plan, n, "reinforce")) for n, plan in enumerate(plans)])
    assert learned > drawn


def test_small_spaces_are_played_to_the_end() -> None:
    for outcomes in (one_unit_outcomes(), chain_outcomes()):
        history: list[Trial] = []
        for _ in range(100):
            plans = load_policy("reinforce").propose(outcomes.context, history, 1)
            if not plans:
                break
            history.append(outcomes.known.run(plans[0], len(history), "reinforce"))
        assert len({shape_of(trial.plan) for trial in history}) == len(history)
        assert len(history) == outcomes.context.space.size() - 1
