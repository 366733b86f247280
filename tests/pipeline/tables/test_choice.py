from __future__ import annotations

from known_tasks import chain_task, residual_task

from pipeline.plan import CompressionPlan
from pipeline.policy.base import shape_of
from pipeline.tables.choice import PlanChooser


def test_plans_lie_in_the_space_and_are_different_and_never_the_original() -> None:
    context = residual_task().context
    plans = PlanChooser(context).choose(60, seed=0)
    shapes = {shape_of(plan) for plan in plans}
    assert len(shapes) == len(plans) == 60
    assert [plan for plan in plans if not context.space.contains(plan)] == []
    assert shape_of(CompressionPlan()) not in shapes


def test_equal_seeds_give_equal_plans_and_others_do_not() -> None:
    chooser = PlanChooser(residual_task().context)
    assert chooser.choose(10, seed=1) == chooser.choose(10, seed=1)
    assert chooser.choose(10, seed=1) != chooser.choose(10, seed=2)


def test_a_small_space_gives_what_it_has() -> None:
    context = chain_task().context
    assert 1 <= len(PlanChooser(context).choose(500, seed=0)) < context.space.size()
